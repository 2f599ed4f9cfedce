"""``dllama-proto wireshark``: the real tshark sees in a capture what our own dissection does."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllama_proto.cli import main
from dllama_proto.connection import Phase
from dllama_proto.dissect import Endpoint, MessageEvent, SliceEvent, WeightEvent, WireEvent, dissect_pcap
from dllama_proto.dissect.recording import RecordedConnection, file_header
from dllama_proto.messages import ControlPacket, Greeting, NodeConfig, Refusal
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.handshake import PEER
from dllama_proto.schemas.wire import U32, Array, Record
from dllama_proto.show.wireshark import _count_of, make_dissector
from tests.helpers.captures import CASES, capture_path, load
from tests.helpers.packets import golden_packets, pcap, rewrap
from tests.proto.stages import Pair

_TSHARK = shutil.which("tshark")
needs_tshark = pytest.mark.skipif(_TSHARK is None, reason="tshark is not installed (Debian: tshark)")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lua") / "dllama.lua"
    path.write_text(make_dissector())
    return path


def tshark(
    script: Path, capture: Path, *fields: str, wanted: str = "dllama", twice: bool = False
) -> list[list[str]]:
    """Return for each packet the values of the fields, those of one field joined by '|'."""
    command = [str(_TSHARK), "-X", f"lua_script:{script}", "-r", str(capture), "-Y", wanted, "-T", "fields"]
    command += ["-E", "aggregator=|", *(["-2"] if twice else [])]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Lua" not in done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def column(rows: list[list[str]], index: int = 0) -> Iterator[str]:
    return (value for row in rows for value in row[index].split("|") if value)


def unpacked(case: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{case}.pcap"
    path.write_bytes(gzip.decompress(capture_path(case).read_bytes()))
    return path


def kinds(events: list[WireEvent]) -> Counter[str]:
    return Counter(
        event.kind.value for event in events if isinstance(event, MessageEvent | WeightEvent | SliceEvent)
    )


def test_every_field_of_every_message_can_be_filtered() -> None:
    text = make_dissector()
    for name in (
        "op.code",
        "op.input.index",
        "pipe.size.x",
        "rope.slice.rope_theta",
        "multihead_att.n_heads0",
    ):
        assert f'("dllama.{name}"' in text
    assert "--@SCHEMAS@" not in text
    assert MESSAGES
    assert all(f'["{cls.__name__}"] = {{' in text for cls in MESSAGES)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wireshark"]) == 0
    assert capsys.readouterr().out == make_dissector()


@needs_tshark
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_tshark_counts_what_we_count(case: str, script: Path, tmp_path: Path) -> None:
    events = list(dissect_pcap(capture_path(case)))
    capture = unpacked(case, tmp_path)
    rows = tshark(
        script, capture, "dllama.kind", "dllama.lost", twice=case in ("tiny-q40-2n", "gqa-q40-4n")
    )
    found = Counter(column(rows))
    del found["weight_data"]
    assert found == kinds(events)
    assert list(column(rows, 1)) == []


@needs_tshark
@pytest.mark.slow
@pytest.mark.parametrize("case", ["qwen3_moe-q40-2n", "gqa-q40-4n", "tiny-f32-2n"])
def test_tshark_reads_the_values_we_read(case: str, script: Path, tmp_path: Path) -> None:
    events = list(dissect_pcap(capture_path(case)))
    capture = unpacked(case, tmp_path)
    fields = (
        "op.code",
        "op.name",
        "op.weight_size.n_bytes",
        "matmul.n_experts",
        "rope.slice.rope_theta",
        "weight.name",
        "weight.n_bytes",
        "weight.offset",
        "control.position",
        "weight.data_size",
    )
    rows = tshark(script, capture, *(f"dllama.{name}" for name in fields))
    found = {name: list(column(rows, index)) for index, name in enumerate(fields)}
    configs = [
        e.message for e in events if isinstance(e, MessageEvent) and isinstance(e.message, NodeConfig)
    ]
    ops = [op for config in configs for segment in config.segments for op in segment.ops]
    pieces = [event for event in events if isinstance(event, WeightEvent)]
    packets = [
        e.message for e in events if isinstance(e, MessageEvent) and isinstance(e.message, ControlPacket)
    ]
    assert list(map(int, found["op.code"])) == [int(op.code) for op in ops]
    assert found["op.name"] == [op.name for op in ops]
    assert list(map(int, found["op.weight_size.n_bytes"])) == [op.weight_size.n_bytes for op in ops]
    assert list(map(int, found["matmul.n_experts"])) == [
        op.config.n_experts for op in ops if hasattr(op.config, "n_experts")
    ]
    assert list(map(float, found["rope.slice.rope_theta"])) == [
        op.config.slice.rope_theta for op in ops if hasattr(op.config, "slice")
    ]
    assert Counter(found["weight.name"]) == Counter(event.header.name for event in pieces)
    assert sum(map(int, found["weight.n_bytes"])) == sum(event.header.n_bytes for event in pieces)
    assert sum(map(int, found["weight.data_size"])) == sum(event.data_size for event in pieces)
    assert Counter(map(int, found["weight.offset"])) == Counter(event.header.offset for event in pieces)
    assert list(map(int, found["control.position"])) == [packet.position for packet in packets]


@needs_tshark
@pytest.mark.slow
@pytest.mark.parametrize("case", ["tiny-q40-2n-batch", "qwen3-q40-4n"])
def test_tshark_adds_up_the_bytes_of_slices(case: str, script: Path, tmp_path: Path) -> None:
    """``-z io,stat`` can sum a field that is a number; the bytes themselves are none."""
    sizes = [event.size for event in dissect_pcap(capture_path(case)) if isinstance(event, SliceEvent)]
    field = "dllama.slice.size"
    command = [str(_TSHARK), "-X", f"lua_script:{script}", "-r", str(unpacked(case, tmp_path)), "-q"]
    command += ["-z", f"io,stat,0,SUM({field}){field},COUNT({field}){field}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = [line for line in done.stdout.splitlines() if "<>" in line]
    assert [int(number) for number in line.split("|")[2:4]] == [sum(sizes), len(sizes)]


@needs_tshark
@pytest.mark.slow
@pytest.mark.parametrize("case", ["tiny-q40-2n-batch", "qwen3-q40-4n"])
def test_tshark_attributes_slices_as_we_do(case: str, script: Path, tmp_path: Path) -> None:
    slices = [event for event in dissect_pcap(capture_path(case)) if isinstance(event, SliceEvent)]
    capture = unpacked(case, tmp_path)
    names = ("sender", "receiver", "slice.segment", "slice.position", "slice.pipe", "slice.start")
    rows = tshark(script, capture, *(f"dllama.{name}" for name in names), wanted='dllama.kind == "slice"')
    found: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        columns = [value.split("|") for value in row]
        # Other messages of the same packet have a sender as well, and come before their slices.
        n = len(columns[2])
        found.update(zip(*(values[-n:] for values in columns), strict=True))
    expected = Counter(
        (
            str(event.transfer.sender),
            str(event.transfer.receiver),
            str(event.transfer.segment_index),
            str(event.position),
            event.pipe,
            str(event.transfer.start),
        )
        for event in slices
    )
    assert found == expected


@needs_tshark
@pytest.mark.slow
def test_filters_find_packets_by_op_and_layer(script: Path, tmp_path: Path) -> None:
    capture = unpacked("tiny-q40-2n", tmp_path)
    assert len(tshark(script, capture, "frame.number", wanted="dllama.op.code == 5")) == 1
    assert len(tshark(script, capture, "frame.number", wanted="dllama.op.code == 16")) == 0
    layer = tshark(script, capture, "dllama.slice.layer", wanted="dllama.slice.layer == 1")
    assert layer
    assert load("tiny-q40-2n").n_nodes == 2


@needs_tshark
@pytest.mark.slow
def test_what_a_tap_records_opens_in_wireshark(script: Path, tmp_path: Path) -> None:
    session = load("tiny-q40-2n")
    recorded = RecordedConnection(Endpoint("10.0.0.1", 4000), Endpoint("10.0.0.2", 9990))
    at = session.stream(0, 1).bytes_before_inference
    root, worker = session.data(0, 1), session.data(1, 0)
    parts = [file_header(), recorded.opened(1)]
    # Ten packets are as good as the hundreds there were; acks in between do not matter to the reader.
    parts += [
        recorded.data(2, root[:at], from_dialler=True),
        recorded.data(3, worker[:16], from_dialler=False),
    ]
    parts += [
        recorded.data(4, root[at:], from_dialler=True),
        recorded.data(5, worker[16:], from_dialler=False),
    ]
    capture = tmp_path / "tap.pcapng"
    capture.write_bytes(b"".join(parts))
    found = Counter(column(tshark(script, capture, "dllama.kind")))
    del found["weight_data"]
    assert found == kinds(list(dissect_pcap(capture_path("tiny-q40-2n"))))
    assert tshark(script, capture, "frame.number", wanted="ip.checksum.status == 0 || _ws.malformed") == []


@needs_tshark
@pytest.mark.slow
@pytest.mark.parametrize("link", ["vlan", "cooked", "cooked v2", "null little", "raw"])
@pytest.mark.parametrize("ipv6", [False, True])
def test_our_packets_are_those_of_wireshark(link: str, ipv6: bool, script: Path, tmp_path: Path) -> None:
    """What the schemas build, tshark reads: the formats are as everybody knows them."""
    capture = tmp_path / "rewrapped.pcap"
    capture.write_bytes(pcap(rewrap(golden_packets("tiny-q40-2n"), link, ipv6=ipv6)))
    found = Counter(column(tshark(script, capture, "dllama.kind")))
    del found["weight_data"]
    assert found == kinds(list(dissect_pcap(capture)))


def test_arrays_know_what_counts_them() -> None:
    text = make_dissector()
    assert 'name = "peers", kind = "array", schema = "peer", count = "n_sockets", plus = -1 }' in text
    assert 'name = "ops", kind = "array", schema = "op", count = "n_ops", plus = 0 }' in text


def test_an_array_that_nothing_counts_is_an_error() -> None:
    array = Record(Greeting, "n_sockets" / U32, "worker_index" / U32, "peers" / Array(2, PEER))
    with pytest.raises(TypeError, match="Greeting: no field counts the items of peers"):
        _count_of("peers", array)


@needs_tshark
@pytest.mark.slow
@pytest.mark.parametrize("said_before", [16, 700])
def test_tshark_reads_why_a_worker_refuses(said_before: int, script: Path, tmp_path: Path) -> None:
    """In its turn, and while the root still sends; whole, and in two packets."""
    session = load("tiny-q40-2n")
    root = session.data(0, 1)
    refusal = bytes(Pair().advance_to(Phase.GREETING_ACK).worker.send(Refusal("no: " + "x" * 300)))
    greeting = 8  # of the only worker
    acks = session.data(1, 0)[:4] if said_before > 16 else b""
    recorded = RecordedConnection(Endpoint("10.0.0.1", 4000), Endpoint("10.0.0.2", 9990))
    parts = [
        file_header(),
        recorded.opened(1),
        recorded.data(2, root[:greeting], from_dialler=True),
    ]
    if acks:
        parts += [
            recorded.data(3, acks, from_dialler=False),
            recorded.data(4, root[greeting:said_before], from_dialler=True),
        ]
    parts += [
        recorded.data(5, refusal[:150], from_dialler=False),
        recorded.data(6, refusal[150:], from_dialler=False),
    ]
    capture = tmp_path / "refused.pcapng"
    capture.write_bytes(b"".join(parts))
    rows = tshark(script, capture, "dllama.refusal.reason", wanted='dllama.kind == "refusal"')
    assert list(column(rows)) == ["no: " + "x" * 300]
    assert tshark(script, capture, "frame.number", wanted="dllama.lost || _ws.malformed") == []
