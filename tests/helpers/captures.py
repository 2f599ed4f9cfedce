"""Reads the recorded sessions of real C++ clusters: bytes of each direction of each link, by node numbers.

``load(case)`` gives a :class:`Session`; ``session.data(0, 1)`` is everything the root said to node 1, and
``session.data(2, 1)`` everything node 2 said to node 1. The recordings (``tests/data/golden/captures``) are
put together by :mod:`dllama_proto.dissect`; each stream is checked against the length and SHA-256 that
``streams.json`` gives, so a test that uses one knows it has every byte.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from dllama_proto.dissect.capture import Problem, read_packets
from dllama_proto.dissect.frames import tcp_segment
from dllama_proto.dissect.tcp import Conversation, Direction, TcpStreams

__all__ = [
    "CASES",
    "CUT_CASE",
    "GOLDEN",
    "Session",
    "Stream",
    "TcpFlow",
    "capture_path",
    "load",
    "read_flows",
]

#: The recordings and everything that came with them.
GOLDEN = Path(__file__).parents[1] / "data" / "golden"

_CAPTURES = GOLDEN / "captures"

#: Every whole session.
CASES: tuple[str, ...] = tuple(sorted(path.stem for path in _CAPTURES.glob("*.json")))

#: A recording that was stopped before its session ended; it has no JSON, read it with ``read_flows``.
CUT_CASE = "cut-tiny-q40-2n"


@dataclass(frozen=True, slots=True)
class TcpFlow:
    """One direction of one TCP connection, put together; ``ended`` tells whether its FIN was seen."""

    src_port: int
    dst_port: int
    dialled: bool
    ended: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """All bytes that node ``sender`` sent to node ``receiver``; ``dialled_by`` is whichever of them did.

    ``bytes_before_inference`` counts what came before the first control packet (for workers: before their
    first slice).
    """

    sender: int
    receiver: int
    dialled_by: int
    bytes_before_inference: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """One recorded session; ``info`` is the case's own JSON, ``index`` its entry in ``streams.json``."""

    name: str
    n_nodes: int
    ports: tuple[int, ...]
    control_packets: tuple[tuple[int, int], ...]
    streams: tuple[Stream, ...]
    info: dict[str, Any]
    index: dict[str, Any]

    def stream(self, sender: int, receiver: int) -> Stream:
        """Return one direction of one link. Raises KeyError where the two have no link."""
        for stream in self.streams:
            if (stream.sender, stream.receiver) == (sender, receiver):
                return stream
        raise KeyError((sender, receiver))

    def data(self, sender: int, receiver: int) -> bytes:
        """Return the bytes of one direction of one link. Raises KeyError where the two have no link."""
        return self.stream(sender, receiver).data

    @property
    def workers(self) -> range:
        """The node indexes of the workers."""
        return range(1, self.n_nodes)


@cache
def load(case: str) -> Session:
    """Read a whole session. Raises ValueError where a stream is not what ``streams.json`` says."""
    info = json.loads((_CAPTURES / f"{case}.json").read_text(encoding="utf-8"))
    index = _stream_index()[case]
    flows = {(flow.src_port, flow.dst_port): flow for flow in read_flows(case)}
    streams = []
    for entry in index["streams"]:
        flow = flows.pop((entry["src_port"], entry["dst_port"]))
        if len(flow.data) != entry["bytes"] or hashlib.sha256(flow.data).hexdigest() != entry["sha256"]:
            raise ValueError(f"{case}: stream {entry['sender']} to {entry['receiver']} is not as recorded")
        streams.append(
            Stream(
                entry["sender"],
                entry["receiver"],
                entry["dialled_by"],
                entry["bytes_before_inference"],
                flow.data,
            )
        )
    if flows:
        raise ValueError(f"{case}: connections nobody listed: {sorted(flows)}")
    return Session(
        name=case,
        n_nodes=info["nodes"],
        ports=tuple(info["ports"]),
        control_packets=tuple((position, size) for position, size in index["control_packets"]),
        streams=tuple(streams),
        info=info,
        index=index,
    )


@cache
def _stream_index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads((GOLDEN / "streams.json").read_text(encoding="utf-8"))
    return index


def read_flows(case: str) -> list[TcpFlow]:
    """Read both directions of every TCP connection of a recording, in order of their first segment.

    Raises ValueError where bytes are missing, or were sent twice with different content.
    """
    collectors: list[_Collector] = []

    def opened(conversation: Conversation) -> None:
        for direction in (conversation.dialler, conversation.listener):
            collectors.append(_Collector(direction))
            direction.sink = collectors[-1]

    def conflict(time: int, direction: Direction, offset: int, size: int) -> None:
        raise ValueError(f"byte {offset} of a stream was sent twice with different content")

    streams = TcpStreams(opened, conflict)
    problems: list[Problem] = []
    with gzip.open(capture_path(case)) as file:
        for time, link_type, data, size in read_packets(cast("BinaryIO", file), case, problems.append):
            segment = tcp_segment(link_type, data, size)
            if segment is not None:
                streams.add(time, segment)
    return [collector.flow() for collector in collectors]


def capture_path(case: str) -> Path:
    """Return the file of a recording."""
    return _CAPTURES / f"{case}.pcap.gz"


class _Collector:
    """Puts one direction together."""

    def __init__(self, direction: Direction) -> None:
        self._direction = direction
        self._data = bytearray()
        self._ended = False

    def data(self, time: int, view: memoryview) -> None:
        self._data += view

    def missing(self, time: int, n: int) -> None:
        raise ValueError(f"{n} bytes from byte {len(self._data)} on are missing")

    def end(self, time: int, *, reset: bool) -> None:
        self._ended = True

    def flow(self) -> TcpFlow:
        direction = self._direction
        return TcpFlow(
            direction.source_port,
            direction.destination_port,
            dialled=direction is direction.conversation.dialler,
            ended=self._ended,
            data=bytes(self._data),
        )
