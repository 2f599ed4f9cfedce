"""Reads the recorded sessions of real C++ clusters: bytes of each direction of each link, by node numbers.

``load(case)`` gives a :class:`Session`; ``session.data(0, 1)`` is everything the root said to node 1, and
``session.data(2, 1)`` everything node 2 said to node 1. The recordings (``tests/data/golden/captures``) are
classic pcap files of Ethernet frames; each stream is checked against the length and SHA-256 that
``streams.json`` gives, so a test that uses one knows it has every byte.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "CASES",
    "CUT_CASE",
    "GOLDEN",
    "Session",
    "Stream",
    "TcpFlow",
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

#: Little-endian classic pcap with microseconds.
_PCAP_MAGIC = 0xA1B2C3D4
_LINK_ETHERNET = 1
_ETHERTYPE_IPV4 = 0x0800
_IP_PROTOCOL_TCP = 6
_FIN, _SYN = 0x01, 0x02


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
    flows: dict[tuple[bytes, bytes, int, int], _Assembly] = {}
    for frame in _frames(gzip.decompress((_CAPTURES / f"{case}.pcap.gz").read_bytes())):
        segment = _tcp_segment(frame)
        if segment is None:
            continue
        key, sequence, flags, payload = segment
        flows.setdefault(key, _Assembly()).add(sequence, flags, payload)
    return [
        TcpFlow(key[2], key[3], dialled=flow.dialled, ended=flow.ended, data=bytes(flow.data))
        for key, flow in flows.items()
    ]


class _Assembly:
    """Puts the segments of one direction together; retransmissions must repeat what was there."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.dialled = False
        self.ended = False
        self._first: int | None = None
        self._ahead: dict[int, bytes] = {}

    def add(self, sequence: int, flags: int, payload: bytes) -> None:
        if flags & _SYN:
            # The SYN itself takes a number; only the dialler's comes without an acknowledgement (0x10).
            self._first = (sequence + 1) % 2**32
            self.dialled = not flags & 0x10
            return
        if self._first is None:
            raise ValueError("a connection's beginning was not recorded")
        if payload:
            self._ahead[(sequence - self._first) % 2**32] = payload
            self._drain()
        if flags & _FIN:
            self.ended = True
            if self._ahead:
                raise ValueError("bytes are missing before the end of a stream")

    def _drain(self) -> None:
        for start in sorted(self._ahead):
            if start > len(self.data):
                return
            payload = self._ahead.pop(start)
            known = min(len(self.data) - start, len(payload))
            if self.data[start : start + known] != payload[:known]:
                raise ValueError(f"byte {start} of a stream was sent twice with different content")
            self.data += payload[known:]


def _frames(pcap: bytes) -> Iterator[bytes]:
    magic, _, _, _, _, _, link_type = struct.unpack_from("<IHHiIII", pcap)
    if magic != _PCAP_MAGIC or link_type != _LINK_ETHERNET:
        raise ValueError(f"not a little-endian Ethernet pcap: magic {magic:#x}, link type {link_type}")
    at = 24
    while at + 16 <= len(pcap):
        captured, original = struct.unpack_from("<II", pcap, at + 8)
        if captured != original:
            raise ValueError("a packet was not recorded whole")
        at += 16 + captured
        if at > len(pcap):
            return  # the recorder was stopped in the middle of a packet
        yield pcap[at - captured : at]


def _tcp_segment(frame: bytes) -> tuple[tuple[bytes, bytes, int, int], int, int, bytes] | None:
    """Return (src address, dst address, src port, dst port), sequence number, flags, payload; or None."""
    if struct.unpack_from(">H", frame, 12)[0] != _ETHERTYPE_IPV4:
        return None
    ip = frame[14:]
    ip = ip[: struct.unpack_from(">H", ip, 2)[0]]
    if ip[9] != _IP_PROTOCOL_TCP:
        return None
    tcp = ip[(ip[0] & 0x0F) * 4 :]
    src_port, dst_port, sequence = struct.unpack_from(">HHI", tcp)
    return (ip[12:16], ip[16:20], src_port, dst_port), sequence, tcp[13], tcp[(tcp[12] >> 4) * 4 :]
