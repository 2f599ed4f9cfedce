"""``dllama-proto diff``: the first message that differs, and the layer whose numbers part."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama_proto.cli import main
from dllama_proto.dissect import MessageEvent, SliceEvent, dissect_pcap
from dllama_proto.dissect.capture import Packet
from dllama_proto.messages import InvRmsConfig, NodeConfig
from dllama_proto.show.diff import diff_captures
from tests.helpers.captures import capture_path
from tests.helpers.packets import golden_packets, pcap, segment_of

_CASE = "gqa-q40-4n"
_GOOD = str(capture_path(_CASE))


def _change(event: SliceEvent | MessageEvent, data: bytes) -> list[Packet]:
    """Return the packets of the capture with other bytes in a slice, on every link that carries it."""
    stream = event.stream
    assert stream is not None
    packets = list(golden_packets(_CASE))
    start: int | None = None
    for index, (time, link_type, raw, size) in enumerate(packets):
        tcp = segment_of(raw)
        if (tcp.source_port, tcp.destination_port) != (stream.source.port, stream.destination.port):
            continue
        if "syn" in tcp.flags:
            start = tcp.sequence + 1
            continue
        assert start is not None
        at = event.offset - (tcp.sequence - start) % 2**32
        if tcp.payload and 0 <= at < len(tcp.payload):
            head = len(raw) - len(tcp.payload)
            changed = raw[: head + at] + data + raw[head + at + len(data) :]
            packets[index] = (time, link_type, changed[: len(raw)], size)
            return packets
    raise AssertionError("no packet has the slice")


def _slice(segment: int, sender: int, position: int) -> SliceEvent:
    return next(
        event
        for event in dissect_pcap(_GOOD)
        if isinstance(event, SliceEvent)
        and event.transfer.segment_index == segment
        and event.transfer.sender == sender
        and event.position == position
    )


def test_a_session_is_equal_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", _GOOD, _GOOD]) == 0
    text = capsys.readouterr().out
    assert "the same" in text
    assert "no slice differs" in text


def test_a_session_whose_config_has_a_float_that_is_no_number_is_equal_to_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event = next(
        event
        for event in dissect_pcap(_GOOD)
        if isinstance(event, MessageEvent) and isinstance(event.message, NodeConfig)
    )
    [epsilon] = {
        op.config.epsilon
        for segment in event.message.segments  # type: ignore[union-attr]
        for op in segment.ops
        if isinstance(op.config, InvRmsConfig)
    }
    at = bytes(event.raw).index(struct.pack("<f", epsilon))
    changed = replace(event, offset=event.offset + at)
    (tmp_path / "nan.pcap").write_bytes(pcap(_change(changed, struct.pack("<f", float("nan")))))
    same = str(tmp_path / "nan.pcap")
    assert main(["diff", same, same]) == 0
    assert "no slice differs" in capsys.readouterr().out
    assert main(["diff", _GOOD, same]) == 1
    assert "first message that differs: node 0 > node" in capsys.readouterr().out


def test_the_layer_whose_numbers_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = _slice(segment=3, sender=2, position=6)
    blocks = np.frombuffer(event.raw, np.dtype([("d", "<f2"), ("qs", "i1", (32,))])).copy()
    blocks["d"] *= np.float16(1.5)
    (tmp_path / "bad.pcap").write_bytes(pcap(_change(event, blocks.tobytes())))
    assert main(["diff", "--json", _GOOD, str(tmp_path / "bad.pcap")]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["messages"] == []
    first = found["first"]
    assert (first["segment_index"], first["sender"], first["first_position"]) == (3, 2, 6)
    assert first["place"] == {"layer": 1, "part": "attention"}
    assert first["largest"] == pytest.approx(0.5, rel=0.01)
    assert [d["n_differ"] for d in found["distances"] if d["n_differ"]] == [1]
    assert main(["diff", "--tolerance", "0.6", _GOOD, str(tmp_path / "bad.pcap")]) == 0
    capsys.readouterr()
    assert main(["diff", _GOOD, str(tmp_path / "bad.pcap")]) == 1
    assert "layer 1 attention, what node 2 sends in pipe ZQ" in capsys.readouterr().out


def test_what_is_no_number_is_infinitely_far(tmp_path: Path) -> None:
    event = _slice(segment=7, sender=1, position=6)
    (tmp_path / "nan.pcap").write_bytes(pcap(_change(event, b"\x00\x00\xc0\x7f")))
    first = diff_captures(_GOOD, str(tmp_path / "nan.pcap")).first
    assert first is not None
    assert (first.pipe, first.largest) == ("LG", float("inf"))


def test_the_first_message_that_differs_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = str(capture_path("tiny-f32-2n")), str(capture_path("tiny-q40-2n"))
    assert main(["diff", one, other]) == 1
    text = capsys.readouterr().out
    assert "first message that differs: node 0 > node 1" in text
    assert "ZQ F32 [32][256]" in text
    assert "ZQ Q80 [32][256]" in text


def test_a_session_that_ends_earlier_is_told(tmp_path: Path) -> None:
    packets = golden_packets("tiny-q40-2n")
    (tmp_path / "short.pcap").write_bytes(pcap(packets[:300]))
    divergence = diff_captures(str(capture_path("tiny-q40-2n")), str(tmp_path / "short.pcap"))
    assert divergence.messages
    assert all(difference.other is None for difference in divergence.messages)
