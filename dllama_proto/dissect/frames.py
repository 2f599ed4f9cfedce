"""Packets to TCP segments: link layer, VLAN tags, IPv4 and IPv6 are taken off.

Checksums are not looked at: where a network card computes them, a capture has none. The definition of the
headers is :mod:`dllama_proto.schemas.packet`; here they are read by plain structs, for speed.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from dllama_proto.schemas.packet import IP_PROTOCOL_TCP, EtherType, LinkType

__all__ = ["ACK", "FIN", "RST", "SYN", "Segment", "address_of_key", "reverse_key", "tcp_segment"]

#: TCP flags.
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

#: Addresses and ports (source, destination) as they stand in the packet; sequence number, acknowledgement
#: number, flags, the payload, and how many bytes of it were not captured.
Segment = tuple[bytes, int, int, int, memoryview, int]

_TCP = struct.Struct(">IIBB").unpack_from
#: Nearly every packet is Ethernet, IPv4 without options and TCP: all of it at once. Type; version and words,
#: length, fragment, protocol; addresses and ports; sequence, acknowledgement, offset, flags.
_COMMON = struct.Struct(">12xHBxH2xHxB2x12sIIBB")
_common = _COMMON.unpack_from
_COMMON_IPV4 = 0x45
#: Of an IPv4 header: version and words, length, flags and fragment offset, protocol.
_IPV4 = struct.Struct(">BxHxxHxB").unpack_from
_U16 = struct.Struct(">H").unpack_from

# Comparing with members of an enum costs several times what comparing numbers does.
_ETHERNET = int(LinkType.ETHERNET)
_IPV4_TYPE, _TCP_PROTOCOL = int(EtherType.IPV4), int(IP_PROTOCOL_TCP)

#: More fragments follow, or this is not the first.
_FRAGMENT = 0x3FFF

_VLAN_TYPES = (EtherType.VLAN, EtherType.VLAN_AD, EtherType.VLAN_OLD)

#: Address families that stand before loopback packets, as different systems number them.
_FAMILY_IPV4 = 2
_FAMILIES_IPV6 = (10, 24, 28, 30)

#: Options that may stand between an IPv6 header and TCP: hop-by-hop, routing, destination; and fragments.
_IPV6_OPTIONS = (0, 43, 60)
_IPV6_FRAGMENT = 44
_MAX_IPV6_OPTIONS = 16


def tcp_segment(link_type: int, data: bytes, size: int) -> Segment | None:
    """Return the TCP segment in a packet of ``size`` bytes, of which ``data`` was captured; None for others.

    None also where so little was captured that the TCP header is not there, and for fragments of IP packets.
    """
    if link_type == _ETHERNET and len(data) >= _COMMON.size:
        ether_type, first, length, fragment, protocol, key, sequence, acknowledgement, offset, flags = (
            _common(data)
        )
        start, end = 34 + (offset >> 4) * 4, 14 + length
        if (
            ether_type == _IPV4_TYPE
            and first == _COMMON_IPV4
            and protocol == _TCP_PROTOCOL
            and not fragment & _FRAGMENT
            and 54 <= start <= end
        ):
            payload = memoryview(data)[start:end]
            return key, sequence, acknowledgement, flags, payload, end - start - len(payload)
    try:
        return _segment(link_type, data, size)
    except (struct.error, IndexError):
        return None


def _segment(link_type: int, data: bytes, size: int) -> Segment | None:
    if link_type == _ETHERNET:
        return _by_ether_type(_U16(data, 12)[0], data, 14, size)
    if link_type == LinkType.LINUX_SLL:
        return _by_ether_type(_U16(data, 14)[0], data, 16, size)
    if link_type == LinkType.LINUX_SLL2:
        return _by_ether_type(_U16(data, 0)[0], data, 20, size)
    if link_type in (LinkType.NULL, LinkType.LOOP):
        order = "big" if link_type == LinkType.LOOP or data[0] == data[1] == 0 else "little"
        family = int.from_bytes(data[:4], order)  # type: ignore[arg-type]
        if family == _FAMILY_IPV4:
            return _ipv4(data, 4, size)
        return _ipv6(data, 4, size) if family in _FAMILIES_IPV6 else None
    if link_type in (
        LinkType.RAW,
        LinkType.RAW_BSD,
        LinkType.RAW_OPENBSD,
        LinkType.IPV4,
        LinkType.IPV6,
    ):
        return _ipv4(data, 0, size) if data[0] >> 4 == 4 else _ipv6(data, 0, size)
    return None


def _by_ether_type(ether_type: int, data: bytes, at: int, size: int) -> Segment | None:
    while ether_type in _VLAN_TYPES:
        ether_type = _U16(data, at + 2)[0]
        at += 4
    if ether_type == EtherType.IPV4:
        return _ipv4(data, at, size)
    return _ipv6(data, at, size) if ether_type == EtherType.IPV6 else None


def _ipv4(data: bytes, at: int, size: int) -> Segment | None:
    first, length, fragment, protocol = _IPV4(data, at)
    if protocol != _TCP_PROTOCOL or first >> 4 != 4 or fragment & _FRAGMENT:
        return None
    tcp = at + (first & 0x0F) * 4
    key = data[at + 12 : at + 20] + data[tcp : tcp + 4]
    # A length of 0 is what cards that cut packets themselves are given.
    return _tcp(key, data, tcp, at + length if length else size)


def _ipv6(data: bytes, at: int, size: int) -> Segment | None:
    if data[at] >> 4 != 6:
        return None
    length = _U16(data, at + 4)[0]
    end = at + 40 + length if length else size
    next_header = data[at + 6]
    tcp = at + 40
    for _ in range(_MAX_IPV6_OPTIONS):
        if next_header == IP_PROTOCOL_TCP:
            return _tcp(data[at + 8 : at + 40] + data[tcp : tcp + 4], data, tcp, end)
        if next_header in _IPV6_OPTIONS:
            next_header, tcp = data[tcp], tcp + data[tcp + 1] * 8 + 8
        elif next_header == _IPV6_FRAGMENT and _U16(data, tcp + 2)[0] & 0xFFF9 == 0:
            # A "fragment" that is the whole packet.
            next_header, tcp = data[tcp], tcp + 8
        else:
            return None
    return None


def _tcp(key: bytes, data: bytes, at: int, end: int) -> Segment | None:
    sequence, acknowledgement, offset, flags = _TCP(data, at + 4)
    start = at + (offset >> 4) * 4
    if offset < 0x50 or start > end:
        return None
    payload = memoryview(data)[start:end]
    return key, sequence, acknowledgement, flags, payload, end - start - len(payload)


def reverse_key(key: bytes) -> bytes:
    """Return the key of the other direction."""
    n = (len(key) - 4) // 2
    return key[n : 2 * n] + key[:n] + key[-2:] + key[-4:-2]


def address_of_key(key: bytes) -> tuple[str, int, str, int]:
    """Return source address and port, destination address and port."""
    n = (len(key) - 4) // 2
    source, destination = ip_address(key[:n]), ip_address(key[n : 2 * n])
    return str(source), _U16(key, 2 * n)[0], str(destination), _U16(key, 2 * n + 2)[0]
