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
"""The header of an Ethernet frame; ``type`` is an :class:`EtherType`.

Example, from a recording on the loopback device::

    000000000000 000000000000 0800  destination, source, type=IPV4

Size in bytes: ``14``.

Written by the nodes' operating systems, read by :mod:`dllama_proto.dissect.frames` (IEEE 802.3).
"""

VLAN_TAG = Struct("tag" / Int16ub, "type" / Int16ub)
"""What stands between an Ethernet header and its payload in a virtual network.

Example, virtual network 7, then IPv4::

    0007 0800  tag=7, type=IPV4

Size in bytes: ``4``.

Written by the nodes' operating systems, read by :mod:`dllama_proto.dissect.frames` (IEEE 802.1Q).
"""

COOKED = Struct(
    "packet_type" / Int16ub,
    "device_type" / Int16ub,
    "address_length" / Int16ub,
    "address" / Bytes(8),
    "type" / Int16ub,
)
"""The header in place of Ethernet's where Linux captured on all interfaces.

Example, a packet to this machine, then IPv4::

    0000 0001 0006 0200000000010000  packet_type=0, device_type=1, address_length=6, address
    0800                             type=IPV4

Size in bytes: ``16``.

Written by libpcap, read by :mod:`dllama_proto.dissect.frames` (LINKTYPE_LINUX_SLL).
"""

COOKED_V2 = Struct(
    "type" / Int16ub,
    Padding(2),
    "interface" / Int32ub,
    "device_type" / Int16ub,
    "packet_type" / Int8ub,
    "address_length" / Int8ub,
    "address" / Bytes(8),
)
"""The newer header where Linux captured on all interfaces: it names the interface.

Example, a packet to this machine on interface 2, then IPv4::

    0800 0000 00000002 0001 00  type=IPV4, padding, interface=2, device_type=1, packet_type=0
    06 0200000000010000         address_length=6, address

Size in bytes: ``20``.

Written by libpcap, read by :mod:`dllama_proto.dissect.frames` (LINKTYPE_LINUX_SLL2).
"""

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
"""The header of an IPv4 packet, with its options.

Example, from a recording::

    45 00 003c         version=4, header_words=5, service=0, total_length=60
    8840 4000          identification=0x8840, dont=True, more=False, offset=0
    40 06 b479         time_to_live=64, protocol=6, checksum=0xB479
    7f000001 7f000001  source, destination, options

Size in bytes: ``4 * first.header_words``.

Written by the nodes' operating systems, read by :mod:`dllama_proto.dissect.frames` (RFC 791, section 3.1).
"""

IPV6 = Struct(
    "first"
    / BitStruct("version" / Rebuild(BitsInteger(4), 6), "class" / BitsInteger(8), "flow" / BitsInteger(20)),
    "payload_length" / Int16ub,
    "next_header" / Int8ub,
    "hop_limit" / Int8ub,
    "source" / Bytes(16),
    "destination" / Bytes(16),
)
"""The header of an IPv6 packet.

Example, a TCP segment of 20 bytes follows::

    60000000 0014 06                     version=6, class=0, flow=0, payload_length=20, next_header=6
    40 20010db8000000000000000000000001  hop_limit=64, source
    20010db8000000000000000000000002     destination

Size in bytes: ``40``.

Written by the nodes' operating systems, read by :mod:`dllama_proto.dissect.frames` (RFC 8200, section 3).
"""

IPV6_EXTENSION = Struct(
    "next_header" / Int8ub,
    "length" / Rebuild(Int8ub, (len_(this.data) + 2) // 8 - 1),
    "data" / Bytes(this.length * 8 + 6),
)
"""Hop-by-hop, routing and destination options: all have their length in the second byte.

Example, 6 bytes of padding, then TCP::

    06 00         next_header=6, length=0
    010400000000  data

Size in bytes: ``8 + 8 * length``.

Written by the nodes' operating systems, read by :mod:`dllama_proto.dissect.frames` (RFC 8200, section 4).
"""

IPV6_FRAGMENT = Struct(
    "next_header" / Int8ub,
    Padding(1),
    "fragment" / BitStruct("offset" / BitsInteger(13), Padding(2), "more" / Flag),
    "identification" / Int32ub,
)
"""The header before a fragment; ``offset`` counts units of 8 bytes.

Example, the last fragment, from byte 1448 on::

    06 00 05a8  next_header=6, padding, offset=181, more=False
    00001234    identification=0x1234

Size in bytes: ``8``.

Written by the nodes' operating systems, read by :mod:`dllama_proto.dissect.frames` (RFC 8200, section 4.5).
"""

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
"""The header of a TCP segment, with its options.

Example, from a recording: the first packet of a connection::

    e556 5eb0 972162ae  source_port=58710, destination_port=24240, sequence=2535547566
    00000000            acknowledgement=0
    a002                header_words=10, urg=False, ack=False, psh=False, rst=False, syn=True, fin=False
    ffd7 fe30 0000      window=65495, checksum=0xFE30, urgent=0
    0204ffd70402080a9226b45b000000000103030a  options

Size in bytes: ``4 * bits.header_words``.

Written by the nodes' operating systems, read by :mod:`dllama_proto.dissect.frames` (RFC 9293, section 3.1).
"""
