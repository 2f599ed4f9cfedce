"""Builds captures: TCP segments in every kind of packet, packets in every kind of file, by the schemas."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from ipaddress import ip_address
from typing import BinaryIO, cast

from dllama_proto.dissect.capture import Packet, read_packets
from dllama_proto.schemas import packet as schema
from dllama_proto.schemas.capture_file import (
    BLOCK_ENHANCED_PACKET,
    BLOCK_INTERFACE,
    BLOCK_OLD_PACKET,
    BLOCK_SECTION,
    BLOCK_SIMPLE_PACKET,
    OPTION_END,
    OPTION_TS_OFFSET,
    OPTION_TS_RESOLUTION,
    PCAP_HEADERS,
    PCAP_MAGIC_MICROSECONDS,
    PCAP_MAGIC_NANOSECONDS,
    PCAP_RECORDS,
    PCAPNG_BLOCKS,
)
from dllama_proto.schemas.packet import EtherType, LinkType
from tests.helpers.captures import capture_path

__all__ = [
    "FILES",
    "LINKS",
    "Tcp",
    "golden_packets",
    "pcap",
    "pcapng",
    "rewrap",
    "segment_of",
]

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Tcp:
    """A TCP segment and its addresses."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: str
    payload: bytes = b""

    def build(self) -> bytes:
        bits = {name: name in self.flags.split() for name in ("urg", "ack", "psh", "rst", "syn", "fin")}
        header = schema.TCP.build(
            {
                "source_port": self.source_port,
                "destination_port": self.destination_port,
                "sequence": self.sequence % 2**32,
                "acknowledgement": self.acknowledgement % 2**32,
                "bits": {"header_words": 6, **bits},
                "window": 512,
                "checksum": 0,
                "urgent": 0,
                "options": b"\1\1\1\0",
            }
        )
        return bytes(header) + self.payload

    def reverse(self) -> Tcp:
        return replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
        )


def segment_of(data: bytes) -> Tcp:
    """Read an Ethernet packet with IPv4 and TCP, by the schemas."""
    ip_at = 14
    ip = schema.IPV4.parse(data[ip_at:])
    tcp_at = ip_at + ip.first.header_words * 4
    tcp = schema.TCP.parse(data[tcp_at:])
    start = tcp_at + tcp.bits.header_words * 4
    names = ("urg", "ack", "psh", "rst", "syn", "fin")
    return Tcp(
        str(ip_address(ip.source)),
        str(ip_address(ip.destination)),
        tcp.source_port,
        tcp.destination_port,
        tcp.sequence,
        tcp.acknowledgement,
        " ".join(name for name in names if tcp.bits[name]),
        data[start : ip_at + ip.total_length],
    )


# Packets ----------------------------------------------------------------------------------------------


def _ip(tcp: Tcp) -> tuple[int, bytes]:
    source, destination = ip_address(tcp.source), ip_address(tcp.destination)
    body = tcp.build()
    if source.version == 4:
        header = schema.IPV4.build(
            {
                "first": {"header_words": 6},
                "service": 0,
                "total_length": 24 + len(body) if 24 + len(body) < 65_536 else 0,
                "identification": 1,
                "fragment": {"dont": True, "more": False, "offset": 0},
                "time_to_live": 64,
                "protocol": schema.IP_PROTOCOL_TCP,
                "checksum": 0,
                "source": source.packed,
                "destination": destination.packed,
                "options": b"\1\1\1\0",
            }
        )
        return EtherType.IPV4, header + body
    options = schema.IPV6_EXTENSION.build({"next_header": schema.IP_PROTOCOL_TCP, "data": bytes(6)})
    whole = schema.IPV6_FRAGMENT.build(
        {"next_header": 0, "fragment": {"offset": 0, "more": False}, "identification": 7}
    )
    length = len(whole) + len(options) + len(body)
    header = schema.IPV6.build(
        {
            "first": {"class": 0, "flow": 5},
            "payload_length": length if length < 65_536 else 0,
            "next_header": 44,
            "hop_limit": 64,
            "source": source.packed,
            "destination": destination.packed,
        }
    )
    return EtherType.IPV6, header + whole + options + body


def _ethernet(tcp: Tcp) -> bytes:
    ether_type, ip = _ip(tcp)
    head = schema.ETHERNET.build({"destination": bytes(6), "source": bytes(6), "type": ether_type})
    return (bytes(head) + ip).ljust(60, b"\x77")


def _vlan(tcp: Tcp) -> bytes:
    ether_type, ip = _ip(tcp)
    head = schema.ETHERNET.build({"destination": bytes(6), "source": bytes(6), "type": EtherType.VLAN_AD})
    outer = schema.VLAN_TAG.build({"tag": 12, "type": EtherType.VLAN})
    return bytes(head) + bytes(outer) + bytes(schema.VLAN_TAG.build({"tag": 7, "type": ether_type})) + ip


def _cooked(tcp: Tcp) -> bytes:
    ether_type, ip = _ip(tcp)
    head = {
        "packet_type": 0,
        "device_type": 1,
        "address_length": 6,
        "address": bytes(8),
        "type": ether_type,
    }
    return bytes(schema.COOKED.build(head)) + ip


def _cooked_v2(tcp: Tcp) -> bytes:
    ether_type, ip = _ip(tcp)
    head = {
        "type": ether_type,
        "interface": 3,
        "device_type": 1,
        "packet_type": 0,
        "address_length": 6,
        "address": bytes(8),
    }
    return bytes(schema.COOKED_V2.build(head)) + ip


def _null(order: str) -> Callable[[Tcp], bytes]:
    def build(tcp: Tcp) -> bytes:
        ether_type, ip = _ip(tcp)
        family = 2 if ether_type == EtherType.IPV4 else 30
        return family.to_bytes(4, order) + ip  # type: ignore[arg-type]

    return build


def _raw(tcp: Tcp) -> bytes:
    return _ip(tcp)[1]


#: Every link layer: its number, and what puts a segment into a packet.
LINKS: dict[str, tuple[LinkType, Callable[[Tcp], bytes]]] = {
    "ethernet": (LinkType.ETHERNET, _ethernet),
    "vlan": (LinkType.ETHERNET, _vlan),
    "cooked": (LinkType.LINUX_SLL, _cooked),
    "cooked v2": (LinkType.LINUX_SLL2, _cooked_v2),
    "null little": (LinkType.NULL, _null("little")),
    "null big": (LinkType.NULL, _null("big")),
    "loop": (LinkType.LOOP, _null("big")),
    "raw": (LinkType.RAW, _raw),
}


# Files ------------------------------------------------------------------------------------------------


def pcap(packets: Iterable[Packet], order: str = "<", magic: int = PCAP_MAGIC_NANOSECONDS) -> bytes:
    """Return a classic file."""
    listed = list(packets)
    header = {
        "magic": magic,
        "version_major": 2,
        "version_minor": 4,
        "utc_offset": 0,
        "accuracy": 0,
        "snap_length": 262_144,
        "link_type": int(listed[0][1]) if listed else 1,
    }
    unit = 1 if magic == PCAP_MAGIC_NANOSECONDS else 1000
    records = [
        PCAP_RECORDS[order].build(
            {
                "seconds": time // _SECOND,
                "fraction": time % _SECOND // unit,
                "original_length": size,
                "data": data,
            }
        )
        for time, _, data, size in listed
    ]
    return b"".join([PCAP_HEADERS[order].build(header), *records])


def pcapng(
    packets: Iterable[Packet], order: str = "<", kind: int = BLOCK_ENHANCED_PACKET, resolution: int = 9
) -> bytes:
    """Return a pcapng file; ``resolution`` as its option has it; simple packets have no times."""
    listed = list(packets)
    blocks = PCAPNG_BLOCKS[order]
    offset = listed[0][0] // _SECOND if listed else 0
    per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    i64 = offset.to_bytes(8, "little" if order == "<" else "big", signed=True)
    options = [
        {"code": OPTION_TS_RESOLUTION, "value": bytes([resolution])},
        {"code": OPTION_TS_OFFSET, "value": i64},
        {"code": OPTION_END, "value": b""},
    ]

    def block(number: int, **body: object) -> bytes:
        return bytes(blocks[number].build({"body": body}))

    parts = [
        block(BLOCK_SECTION, version_major=1, version_minor=0, section_length=-1, options=[]),
        block(
            BLOCK_INTERFACE,
            link_type=int(listed[0][1]) if listed else 1,
            snap_length=0,
            options=options,
        ),
    ]
    for time, _, data, size in listed:
        ticks = (time - offset * _SECOND) * per_second // _SECOND
        if kind == BLOCK_SIMPLE_PACKET:
            parts.append(block(kind, original_length=size, data=data))
            continue
        body = {
            "interface": 0,
            "timestamp_high": ticks >> 32,
            "timestamp_low": ticks & 0xFFFFFFFF,
            "original_length": size,
            "data": data,
            "options": [],
        }
        if kind == BLOCK_OLD_PACKET:
            body["n_drops"] = -1
        parts.append(block(kind, **body))
    return b"".join(parts)


#: Every kind of file, and whether it keeps times to the nanosecond.
FILES: dict[str, tuple[Callable[[Sequence[Packet]], bytes], bool]] = {
    "pcap": (pcap, True),
    "pcap big": (lambda packets: pcap(packets, ">"), True),
    "pcap microseconds": (lambda packets: pcap(packets, "<", PCAP_MAGIC_MICROSECONDS), False),
    "pcap gz": (lambda packets: gzip.compress(pcap(packets), 1), True),
    "pcapng": (pcapng, True),
    "pcapng big": (lambda packets: pcapng(packets, ">"), True),
    "pcapng microseconds": (lambda packets: pcapng(packets, resolution=6), False),
    "pcapng binary": (lambda packets: pcapng(packets, resolution=0x80 | 20), False),
    "pcapng old": (lambda packets: pcapng(packets, kind=BLOCK_OLD_PACKET), True),
    "pcapng simple": (lambda packets: pcapng(packets, kind=BLOCK_SIMPLE_PACKET), False),
    "pcapng gz": (lambda packets: gzip.compress(pcapng(packets), 1), True),
}


@cache
def golden_packets(case: str) -> tuple[Packet, ...]:
    """Return the packets of a recording."""
    data = gzip.decompress(capture_path(case).read_bytes())
    return tuple(read_packets(cast("BinaryIO", BytesIO(data)), case, lambda problem: None))


def rewrap(packets: Iterable[Packet], link: str, *, ipv6: bool = False) -> list[Packet]:
    """Return the same TCP segments in other packets."""
    number, build = LINKS[link]
    result: list[Packet] = []
    for time, _, data, _ in packets:
        tcp = segment_of(data)
        if ipv6:
            tcp = replace(tcp, source="::1", destination="::1")
        wrapped = build(tcp)
        result.append((time, int(number), wrapped, len(wrapped)))
    return result
