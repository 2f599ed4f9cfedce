"""Sampling: same seed, same tokens as the C++ program; probabilities bit for bit."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_worker.root.sampler import Sampler, XorShift, softmax
from tests.helpers.captures import GOLDEN

_RECORDED = json.loads((GOLDEN.parent / "tokenizer" / "sampler.json").read_text(encoding="utf-8"))


def _logits(n: int, row: int, spread: float) -> npt.NDArray[np.float32]:
    """Return the logits that tests/data/tokenizer/README.md describes."""
    x = [(i * 2654435761 + row * 40503 * (i % 7 + 1)) % 65521 for i in range(n)]
    return ((np.array(x, dtype=np.float64) / 65521 * 2 - 1) * spread).astype(np.float32)


def _name(case: dict[str, Any]) -> str:
    return "-".join(str(value) for value in case.values() if not isinstance(value, list | str))


@pytest.mark.parametrize("case", _RECORDED["sample"], ids=_name)
def test_tokens_are_those_of_the_c_plus_plus_program(case: dict[str, Any]) -> None:
    sampler = Sampler(case["temperature"], case["topp"], case["seed"])
    tokens = [sampler.sample(_logits(case["n"], row, case["spread"])) for row in range(len(case["tokens"]))]
    assert tokens == case["tokens"]


@pytest.mark.parametrize("case", _RECORDED["softmax"], ids=_name)
def test_probabilities_are_those_of_the_c_plus_plus_program_bit_for_bit(case: dict[str, Any]) -> None:
    got = softmax(_logits(case["n"], 3, case["spread"]) / np.float32(case["temperature"])).tobytes()
    assert got[:32].hex() == case["first"]
    assert hashlib.sha256(got[: case["n"] // 8 * 32]).hexdigest() == case["sha256"]


def test_no_temperature_takes_the_first_of_the_likeliest() -> None:
    logits = np.array([1, 5, 5, 2], dtype=np.float32)
    assert Sampler(0, 0.9, 1).sample(logits) == 1


@pytest.mark.parametrize("temperature", [0, 0.8, 50])
@pytest.mark.parametrize("topp", [0, 0.9, 1])
def test_rows_without_a_token_are_never_picked(temperature: float, topp: float) -> None:
    logits = np.zeros(16, dtype=np.float32)
    logits[10:] = 30  # what fills a vocabulary up may well look likely
    sampler = Sampler(temperature, topp, 7, vocab_size=10)
    assert max(sampler.sample(logits) for _ in range(50)) < 10


def test_logits_are_left_as_they_are() -> None:
    logits = _logits(100, 0, 3)
    before = logits.copy()
    Sampler(0.8, 0.9, 1).sample(logits)
    assert (logits == before).all()


def test_read_only_logits_will_do() -> None:
    logits = _logits(100, 0, 3)
    logits.flags.writeable = False
    assert Sampler(0.8, 0.9, 1).sample(logits) in range(100)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logits_that_are_no_numbers_are_refused(value: float, temperature: float) -> None:
    logits = _logits(16, 0, 3)
    logits[5] = value
    with pytest.raises(ValueError, match="of 16 logits is"):
        Sampler(temperature, 0.9, 1).sample(logits)


def test_a_seed_counts_modulo_2_to_the_64() -> None:
    assert XorShift(-1).next_u32() == XorShift(2**64 - 1).next_u32()
    # The first numbers of state 1, by the definition of xorshift*.
    assert [XorShift(1).next_u32()] == [((1 ^ 1 << 25) * 0x2545F4914F6CDD1D % 2**64) >> 32]


def test_a_tiny_top_p_takes_the_likeliest() -> None:
    logits = np.array([0.0, 0.1], dtype=np.float32)
    assert Sampler(1, 0.05, 3).sample(logits) == 1


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=70), st.integers(0, 2**64 - 1))
def test_probabilities_add_up_and_tokens_exist(values: list[float], seed: int) -> None:
    logits = np.array(values, dtype=np.float32)
    probabilities = softmax(logits)
    assert probabilities.sum(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    exact = np.exp(logits.astype(np.float64) - logits.max())
    assert probabilities == pytest.approx(exact / exact.sum(), rel=2e-4, abs=1e-30)
    for topp in (0.0, 0.5, 0.9):
        assert 0 <= Sampler(0.8, topp, seed).sample(logits) < len(values)
