"""Captures of any size: memory stays bounded. How fast they are read, benchmarks/dissect.py measures."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dllama_proto.connection import Ack, AckKind, Connection, Role, WeightsEnd
from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, SyncType
from dllama_proto.messages import (
    ControlPacket,
    Greeting,
    MatmulConfig,
    NetConfig,
    NodeConfig,
    OpConfig,
    PipeConfig,
    Pointer,
    PreSyncConfig,
    SegmentConfig,
    Size3D,
    SyncConfig,
    WeightHeader,
)

_MEGABYTE = 1 << 20
_PIECE = 8 * _MEGABYTE
_SEGMENT = 1448

_PROGRAM = """
import re, resource
from pathlib import Path
from dllama_proto.dissect import dissect_pcap
dissection = dissect_pcap("-")
n = sum(1 for _ in dissection)
totals = dissection.totals
assert totals.unexplained_bytes == totals.missing_bytes == 0
# What getrusage tells includes the parent's memory, before this program began.
status = Path("/proc/self/status")
peak = re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1] if status.exists() else (
    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
)
print(totals.explained_bytes, n, peak)
"""


def capture_of_weights(n_pieces: int) -> Iterator[bytes]:
    """Yield a capture of a session that is nearly all weights, in packets as Ethernet has them."""
    weight = Size3D.of(FloatType.F32, y=1024, x=_PIECE // 4096)
    positions, rows = Size3D.of(FloatType.F32, y=32, x=1), Size3D.of(FloatType.F32, y=32, x=1024)
    net = NetConfig(32, 2, (PipeConfig(positions, "POS"), PipeConfig(rows, "X")), (PreSyncConfig(0),))
    x = Pointer(PointerSource.PIPE, 1, PointerType.BATCH)
    ops = tuple(
        OpConfig(OpCode.MATMUL, index, weight, "block_matmul_q", x, x, MatmulConfig(0, 0, 0))
        for index in range(n_pieces)
    )
    node = NodeConfig(1, (), (SegmentConfig((SyncConfig(1, SyncType.WITH_ROOT),), ops),))
    root, worker = Connection(Role.ROOT), Connection(Role.WORKER)
    wire = _Wire()
    yield wire.opened()
    before: list[object] = [Greeting(1, 0, ()), AckKind.GREETING, AckKind.ROOT_READY]
    before += [AckKind.NET_CONFIG_AHEAD, net, AckKind.NET_CONFIG]
    before += [AckKind.NODE_CONFIG_AHEAD, node, AckKind.NODE_CONFIG]
    for event in before:
        yield wire.message(root, worker, event)
    for index in range(n_pieces):
        yield wire.message(root, worker, WeightHeader("block_matmul_q", index, 0, _PIECE))
        yield wire.packets(0, bytes(_PIECE))
        root.payload_sent(_PIECE)
        worker.payload_received(_PIECE)
    after: list[object] = [WeightsEnd(), AckKind.WEIGHTS, ControlPacket(0, 0)]
    for event in after:
        yield wire.message(root, worker, event)


class _Wire:
    """Makes packets of what two ends say."""

    def __init__(self) -> None:
        self._next = [1000, 5000]
        self._time = 0

    def opened(self) -> bytes:
        head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 0, 1)
        return head + self._packet(0, b"", 0x02) + self._packet(1, b"", 0x12) + self._packet(0, b"", 0x10)

    def message(self, root: Connection, worker: Connection, said: object) -> bytes:
        event = Ack(said) if isinstance(said, AckKind) else said
        end = 0 if root.is_our_turn else 1
        speaker, listener = (root, worker) if not end else (worker, root)
        data = bytes(speaker.send(event))  # type: ignore[arg-type]
        listener.receive_data(data)
        while listener.next_event() != event:
            pass
        return self.packets(end, data)

    def packets(self, end: int, data: bytes) -> bytes:
        return b"".join(self._packet(end, data[at : at + _SEGMENT]) for at in range(0, len(data), _SEGMENT))

    def _packet(self, end: int, payload: bytes, flags: int = 0x18) -> bytes:
        addresses = b"\x0a\0\0\x01\x0a\0\0\x02" if not end else b"\x0a\0\0\x02\x0a\0\0\x01"
        ports = (40_000, 9_990) if not end else (9_990, 40_000)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0x4000, 64, 6, 0) + addresses
        tcp = struct.pack(
            ">HHIIBBHHH", *ports, self._next[end], self._next[1 - end], 0x50, flags, 500, 0, 0
        )
        self._next[end] = (self._next[end] + len(payload) + bool(flags & 3)) % 2**32
        self._time += 10_000
        size = 54 + len(payload)
        head = struct.pack("<IIII", self._time // 10**9, self._time % 10**9, size, size)
        return head + bytes(12) + b"\x08\0" + ip + tcp + payload


@pytest.mark.slow
def test_weights_pass_and_are_not_held() -> None:
    """192 MB here; the limits are those of a capture of any size."""
    n_pieces = 24
    command = [sys.executable, "-c", _PROGRAM]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    for part in capture_of_weights(n_pieces):
        process.stdin.write(part)
    out, _ = process.communicate()
    explained, n_events, peak_kb = out.split()
    assert process.returncode == 0
    assert int(explained) > n_pieces * _PIECE
    assert int(n_events) < n_pieces + 30
    assert int(peak_kb) < 100 * 1024
