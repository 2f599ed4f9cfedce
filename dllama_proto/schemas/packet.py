"""The headers round a TCP payload: link layers, IPv4, IPv6, TCP.

Sources: IEEE 802.3 and 802.1Q, the LINKTYPE_ pages of tcpdump.org (cooked, loopback), RFC 791, RFC 8200,
RFC 9293. :mod:`dllama_proto.dissect.frames` reads packets by plain structs, for speed; a test holds the two
ways equal.
"""

from __future__ import annotations

from enum import IntEnum

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    Flag,
    Int8ub,
    Int16ub,
    Int32ub,
    Padding,
    Rebuild,
    Struct,
    len_,
    this,
)

__all__ = [
    "COOKED",
    "COOKED_V2",
    "ETHERNET",
    "EtherType",
    "IPV4",
    "IPV6",
    "IPV6_EXTENSION",
    "IPV6_FRAGMENT",
    "IP_PROTOCOL_TCP",
    "LinkType",
    "TCP",
    "VLAN_TAG",
]


class LinkType(IntEnum):
    """What a packet begins with (LINKTYPE_ numbers of tcpdump.org)."""

    #: The address family in the byte order of the machine that captured.
    NULL = 0
    ETHERNET = 1
    #: Raw IP as some systems number it.
    RAW_BSD = 12
    RAW_OPENBSD = 14
    RAW = 101
    #: The address family in network byte order.
    LOOP = 108
    #: Linux "any" interface.
    LINUX_SLL = 113
    IPV4 = 228
    IPV6 = 229
    LINUX_SLL2 = 276


class EtherType(IntEnum):
    """What follows a link layer's header."""

    IPV4 = 0x0800
    IPV6 = 0x86DD
    VLAN = 0x8100
    #: Provider tags: 802.1ad, and the number used before it.
    VLAN_AD = 0x88A8
    VLAN_OLD = 0x9100


IP_PROTOCOL_TCP = 6

ETHERNET = Struct("destination" / Bytes(6), "source" / Bytes(6), "type" / Int16ub)

VLAN_TAG = Struct("tag" / Int16ub, "type" / Int16ub)

COOKED = Struct(
    "packet_type" / Int16ub,
    "device_type" / Int16ub,
    "address_length" / Int16ub,
    "address" / Bytes(8),
    "type" / Int16ub,
)

COOKED_V2 = Struct(
    "type" / Int16ub,
    Padding(2),
    "interface" / Int32ub,
    "device_type" / Int16ub,
    "packet_type" / Int8ub,
    "address_length" / Int8ub,
    "address" / Bytes(8),
)

IPV4 = Struct(
    "first" / BitStruct("version" / Rebuild(BitsInteger(4), 4), "header_words" / BitsInteger(4)),
    "service" / Int8ub,
    "total_length" / Int16ub,
    "identification" / Int16ub,
    "fragment" / BitStruct(Padding(1), "dont" / Flag, "more" / Flag, "offset" / BitsInteger(13)),
    "time_to_live" / Int8ub,
    "protocol" / Int8ub,
    "checksum" / Int16ub,
    "source" / Bytes(4),
    "destination" / Bytes(4),
    "options" / Bytes((this.first.header_words - 5) * 4),
)

IPV6 = Struct(
    "first"
    / BitStruct("version" / Rebuild(BitsInteger(4), 6), "class" / BitsInteger(8), "flow" / BitsInteger(20)),
    "payload_length" / Int16ub,
    "next_header" / Int8ub,
    "hop_limit" / Int8ub,
    "source" / Bytes(16),
    "destination" / Bytes(16),
)

#: Hop-by-hop, routing and destination options: all have their length in the second byte.
IPV6_EXTENSION = Struct(
    "next_header" / Int8ub,
    "length" / Rebuild(Int8ub, (len_(this.data) + 2) // 8 - 1),
    "data" / Bytes(this.length * 8 + 6),
)

IPV6_FRAGMENT = Struct(
    "next_header" / Int8ub,
    Padding(1),
    "fragment" / BitStruct("offset" / BitsInteger(13), Padding(2), "more" / Flag),
    "identification" / Int32ub,
)

TCP = Struct(
    "source_port" / Int16ub,
    "destination_port" / Int16ub,
    "sequence" / Int32ub,
    "acknowledgement" / Int32ub,
    "bits"
    / BitStruct(
        "header_words" / BitsInteger(4),
        Padding(6),
        "urg" / Flag,
        "ack" / Flag,
        "psh" / Flag,
        "rst" / Flag,
        "syn" / Flag,
        "fin" / Flag,
    ),
    "window" / Int16ub,
    "checksum" / Int16ub,
    "urgent" / Int16ub,
    "options" / Bytes((this.bits.header_words - 5) * 4),
)
