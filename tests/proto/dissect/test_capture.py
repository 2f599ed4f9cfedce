"""Capture files of every kind give the same packets; what is wrong with one is said with its byte."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.dissect import CaptureError, dissect_pcap
from dllama_proto.dissect.capture import Packet, Problem, read_packets
from tests.helpers.packets import FILES, golden_packets, pcap, pcapng


def read(data: bytes) -> tuple[list[Packet], list[Problem]]:
    problems: list[Problem] = []
    return list(read_packets(BytesIO(data), "x.pcap", problems.append)), problems


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_gives_the_same_packets(kind: str) -> None:
    build, exact = FILES[kind]
    packets = list(golden_packets("tiny-q40-2n"))
    got, problems = read(build(packets))
    assert problems == []
    assert [packet[1:] for packet in got] == [packet[1:] for packet in packets]
    if exact:
        assert [packet[0] for packet in got] == [packet[0] for packet in packets]
    elif "simple" not in kind:
        assert all(0 <= old[0] - new[0] < 1000 for old, new in zip(packets, got, strict=True))


_PACKETS = st.lists(
    st.tuples(
        st.integers(0, 2**32 * 10**9 - 1),
        st.just(1),
        st.binary(max_size=80),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=5,
)


@given(_PACKETS, st.sampled_from(["<", ">"]))
def test_the_fast_reader_reads_what_the_schemas_build(packets: list[Packet], order: str) -> None:
    assert read(pcap(packets, order)) == (packets, [])


@given(_PACKETS, st.sampled_from(["<", ">"]))
def test_the_fast_reader_reads_blocks_as_the_schemas_build_them(packets: list[Packet], order: str) -> None:
    late = [packet for packet in packets if packet[0] >= packets[0][0]]
    assert read(pcapng(late, order)) == (late, [])


@pytest.mark.parametrize("build", [pcap, pcapng])
def test_a_file_cut_at_any_byte_gives_what_came_before_and_says_where(build: object) -> None:
    packets = list(golden_packets("tiny-q40-2n"))[:4]
    data = build(packets)  # type: ignore[operator]
    for cut in range(len(data)):
        got, problems = read(data[:cut])
        assert got == packets[: len(got)]
        at_boundary = got and data[:cut] == build(packets[: len(got)])  # type: ignore[operator]
        if problems:
            assert (
                "ends within" in problems[0].text
                or "empty" in problems[0].text
                or "section" in problems[0].text
            )
            assert problems[0].offset <= cut
        else:
            assert at_boundary or cut in ((24,) if build is pcap else (28, 72))


def test_a_gzipped_file_that_was_cut_says_so() -> None:
    data = FILES["pcap gz"][0](list(golden_packets("tiny-q40-2n")))
    got, [problem] = read(data[: len(data) // 2])
    assert len(got) > 100
    assert "gzipped" in problem.text


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: data[:32] + b"\xff\xff\xff\x7f" + data[36:], "a packet of 2147483647 bytes"),
        (lambda data: data[:30], "ends within a packet's header"),
    ],
)
def test_a_damaged_file_is_named_with_the_byte(damage: object, text: str) -> None:
    data = pcap(list(golden_packets("tiny-q40-2n"))[:3])
    got, [problem] = read(damage(data))  # type: ignore[operator]
    assert got == []
    assert text in problem.text
    assert problem.offset in (24, 32)


def test_a_block_whose_lengths_differ_is_found() -> None:
    data = bytearray(pcapng(list(golden_packets("tiny-q40-2n"))[:3]))
    data[-1] ^= 1
    got, [problem] = read(bytes(data))
    assert len(got) == 2
    assert "two lengths differ" in problem.text


@pytest.mark.parametrize("data", [b"GIF89a..", b"\x7fELF\x02\x01", b"\xa1\xb2\x00\x00"])
def test_what_is_no_capture_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "picture.gif"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=r"picture\.gif at byte 0: expected a pcap or pcapng file"):
        list(dissect_pcap(path))


@given(st.binary(max_size=300), st.sampled_from(["pcap", "pcapng", "pcap gz"]), st.integers(0, 200))
def test_any_bytes_never_make_a_traceback(data: bytes, kind: str, at: int) -> None:
    good = FILES[kind][0](list(golden_packets("tiny-q40-2n"))[:2])
    read(good[:at] + data) if at >= 4 or not data else None
