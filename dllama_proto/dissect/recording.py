"""Streams to pcapng: for whoever passes bytes on and wants them recorded as if they had been captured.

Nothing here touches a socket or a file: every method returns the bytes to write next. Packets have IP and TCP
headers as the two ends would have sent them, so that Wireshark and :func:`dllama_proto.dissect.dissect_pcap`
read the file like any other.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from dllama_proto.dissect.frames import ACK, FIN, RST, SYN
from dllama_proto.endpoint import Endpoint
from dllama_proto.schemas.capture_file import (
    BLOCK_ENHANCED_PACKET,
    BLOCK_INTERFACE,
    BLOCK_SECTION,
    OPTION_END,
    OPTION_TS_RESOLUTION,
    PCAPNG_BLOCKS,
)
from dllama_proto.schemas.packet import IP_PROTOCOL_TCP, LinkType

__all__ = ["RecordedConnection", "file_header"]

#: What goes into one packet at most; an IP length has 16 bits.
_MAX_PAYLOAD = 60_000
_PSH = 0x08
_MASK = 0xFFFFFFFF
#: Where sequence numbers begin: offsets are easy to see then.
_FIRST_SEQUENCE = 1_000_000_000
_BLOCK = struct.Struct("<IIIIIII")
_IPV4 = struct.Struct(">BBHHHBBH")
_TCP = struct.Struct(">HHIIBBHHH")


def file_header() -> bytes:
    """Return what a file begins with: a section, and one interface of raw IP with times in nanoseconds."""
    section, interface = PCAPNG_BLOCKS["<"][BLOCK_SECTION], PCAPNG_BLOCKS["<"][BLOCK_INTERFACE]
    about = {"version_major": 1, "version_minor": 0, "section_length": -1, "options": []}
    options = [{"code": OPTION_TS_RESOLUTION, "value": b"\x09"}, {"code": OPTION_END, "value": b""}]
    link = {"link_type": int(LinkType.RAW), "snap_length": 0, "options": options}
    return bytes(section.build({"body": about})) + bytes(interface.build({"body": link}))


class RecordedConnection:
    """One TCP connection, as packets. Times are nanoseconds since 1970.

    Both addresses must be of the same family.
    """

    def __init__(self, dialler: Endpoint, listener: Endpoint) -> None:
        ends = (dialler, listener)
        self._addresses = tuple(ip_address(end.host) for end in ends)
        if self._addresses[0].version != self._addresses[1].version:
            raise ValueError(f"{dialler} and {listener} are of different address families")
        self._ports = tuple(end.port for end in ends)
        #: Of each end, the number of the byte that it sends next.
        self._next = [_FIRST_SEQUENCE, _FIRST_SEQUENCE]

    def opened(self, time: int) -> bytes:
        """Return the three packets that open the connection."""
        return b"".join(
            (self._packet(time, 0, SYN), self._packet(time, 1, SYN | ACK), self._packet(time, 0, ACK))
        )

    def data(self, time: int, payload: bytes | memoryview, *, from_dialler: bool) -> bytes:
        """Return the packets of bytes that one end sent."""
        end = 0 if from_dialler else 1
        return b"".join(
            self._packet(time, end, ACK | _PSH, payload[start : start + _MAX_PAYLOAD])
            for start in range(0, len(payload), _MAX_PAYLOAD)
        )

    def closed(self, time: int, *, from_dialler: bool) -> bytes:
        """Return the packet by which one end says that it sends nothing more."""
        return self._packet(time, 0 if from_dialler else 1, ACK | FIN)

    def aborted(self, time: int, *, from_dialler: bool) -> bytes:
        """Return the packet by which one end breaks the connection off."""
        return self._packet(time, 0 if from_dialler else 1, ACK | RST)

    def _packet(self, time: int, end: int, flags: int, payload: bytes | memoryview = b"") -> bytes:
        other = 1 - end
        sequence, acknowledgement = self._next[end], self._next[other] if flags & ACK else 0
        tcp = _TCP.pack(
            self._ports[end], self._ports[other], sequence, acknowledgement, 0x50, flags, 0xFFFF, 0, 0
        )
        self._next[end] = sequence + len(payload) + bool(flags & (SYN | FIN)) & _MASK
        ip = self._ip(end, len(tcp) + len(payload))
        size = len(ip) + len(tcp) + len(payload)
        padding = -size % 4
        total = 32 + size + padding
        head = _BLOCK.pack(BLOCK_ENHANCED_PACKET, total, 0, time >> 32, time & _MASK, size, size)
        return b"".join((head, ip, tcp, payload, bytes(padding), total.to_bytes(4, "little")))

    def _ip(self, end: int, size: int) -> bytes:
        source, destination = self._addresses[end], self._addresses[1 - end]
        if isinstance(source, IPv6Address) or not isinstance(destination, IPv4Address):
            head = struct.pack(">IHBB", 6 << 28, size, IP_PROTOCOL_TCP, 64)
            return head + source.packed + destination.packed
        fields = (0x45, 0, 20 + size, 0, 0x4000, 64, IP_PROTOCOL_TCP)
        addresses = source.packed + destination.packed
        return _IPV4.pack(*fields, _checksum(_IPV4.pack(*fields, 0) + addresses)) + addresses


def _checksum(header: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
