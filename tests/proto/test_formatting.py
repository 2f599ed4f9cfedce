"""Sizes, times and counts as people read them: right unit, right plural, and never far from the number."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.formatting import counted, format_bytes, format_duration

_BYTE_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_TIME_UNITS = {"µs": 1e3, "ms": 1e6, "s": 1e9}


def value_of(text: str, units: dict[str, float]) -> tuple[float, float]:
    """Return what a text stands for, and how much its last digit is worth."""
    number, unit = text.split(" ")
    assert re.fullmatch(r"-?\d+(\.\d+)?", number)
    decimals = len(number.partition(".")[2])
    return float(number) * units[unit], units[unit] * 10.0**-decimals


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (1540, "1.5 kB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (999_999_999, "1.0 GB"),
        (1_500_000_000, "1.5 GB"),
        (2_000_000_000_000, "2.0 TB"),
        (1_234_500_000_000_000, "1234.5 TB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_bytes_have_a_unit_that_suits(n: float, text: str) -> None:
    assert format_bytes(n) == text


@given(st.integers(0, 10**18))
def test_bytes_are_rounded_by_half_a_digit(n: int) -> None:
    value, digit = value_of(format_bytes(n), _BYTE_UNITS)
    assert abs(value - n) <= digit / 2 * (1 + 1e-6)


@given(st.integers(0, 999_949 * 10**9), st.sampled_from([1, -1]))
def test_no_number_of_bytes_has_more_than_three_digits_before_the_point(n: int, sign: int) -> None:
    assert re.fullmatch(r"-?\d{1,3}(\.\d)? [kMGT]?B", format_bytes(sign * n))


@given(st.floats(-1e15, 1e15))
def test_fewer_bytes_have_their_sign_only(n: float) -> None:
    shown = format_bytes(abs(n))
    assert format_bytes(-abs(n)) in (f"-{shown}", shown if shown == "0 B" else f"-{shown}")


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 µs"),
        (499, "0 µs"),
        (501, "1 µs"),
        (1000, "1 µs"),
        (999_400, "999 µs"),
        (999_600, "1.00 ms"),
        (1_000_000, "1.00 ms"),
        (1_500_000, "1.50 ms"),
        (999_990_000, "999.99 ms"),
        (999_996_000, "1.00 s"),
        (1_000_000_000, "1.00 s"),
        (90_000_000_000, "90.00 s"),
    ],
)
def test_times_have_a_unit_that_suits(ns: float, text: str) -> None:
    assert format_duration(ns) == text


@given(st.integers(0, 10**15))
def test_times_are_rounded_by_half_a_digit(ns: int) -> None:
    value, digit = value_of(format_duration(ns), _TIME_UNITS)
    assert abs(value - ns) <= digit / 2 * (1 + 1e-6)


@given(st.integers(0, 10**9 - 1))
def test_no_time_below_a_second_has_more_than_three_digits_before_the_point(ns: int) -> None:
    assert re.fullmatch(r"\d{1,3}(\.\d\d)? (µs|ms)|1\.00 s", format_duration(ns))


@pytest.mark.parametrize(("n", "text"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes"), (11, "11 nodes")])
def test_one_is_no_plural(n: int, text: str) -> None:
    assert counted(n, "node") == text


@given(st.integers(-(10**6), 10**6), st.sampled_from(["row", "weight piece"]))
def test_only_one_is_no_plural(n: int, noun: str) -> None:
    assert counted(n, noun) == f"{n} {noun}" + ("s" if n != 1 else "")
