"""Capture files: classic pcap, and the blocks of pcapng that hold packets.

Sources: the IETF drafts draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Which byte order a file has is
told by its first bytes, so every schema exists in both; :mod:`dllama_proto.dissect.capture` reads by plain
structs, for speed, and a test holds the two ways equal.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from construct import (
    Aligned,
    Bytes,
    Const,
    FixedSized,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16sb,
    Int16sl,
    Int16ub,
    Int16ul,
    Int32sb,
    Int32sl,
    Int32ub,
    Int32ul,
    Int64sb,
    Int64sl,
    Padding,
    Rebuild,
    Struct,
    len_,
    this,
)

__all__ = [
    "BLOCK_ENHANCED_PACKET",
    "BLOCK_INTERFACE",
    "BLOCK_OLD_PACKET",
    "BLOCK_SECTION",
    "BLOCK_SIMPLE_PACKET",
    "BYTE_ORDER_MAGIC",
    "OPTION_END",
    "OPTION_TS_OFFSET",
    "OPTION_TS_RESOLUTION",
    "PCAPNG_BLOCKS",
    "PCAP_HEADERS",
    "PCAP_MAGIC_MICROSECONDS",
    "PCAP_MAGIC_NANOSECONDS",
    "PCAP_RECORDS",
    "TS_RESOLUTION",
]

#: First four bytes of a classic file, in its byte order: what a fraction of a second is counted in.
PCAP_MAGIC_MICROSECONDS = 0xA1B2C3D4
PCAP_MAGIC_NANOSECONDS = 0xA1B23C4D

#: Type of the block that begins a section, the same in both byte orders.
BLOCK_SECTION = 0x0A0D0D0A
BLOCK_INTERFACE = 1
#: Obsolete, but read.
BLOCK_OLD_PACKET = 2
BLOCK_SIMPLE_PACKET = 3
BLOCK_ENHANCED_PACKET = 6

#: Third field of a section's header.
BYTE_ORDER_MAGIC = 0x1A2B3C4D

OPTION_END = 0
OPTION_TS_RESOLUTION = 9
OPTION_TS_OFFSET = 14

TS_RESOLUTION = Int8ub
"""The value of ``OPTION_TS_RESOLUTION``: a power of 10, or with the highest bit set of 2.

Example, nanoseconds::

    09  value=9

Size in bytes: ``1``.

Written by :mod:`dllama_proto.dissect.recording`, read by :mod:`dllama_proto.dissect.capture`.
"""


def _classic(u16: Any, u32: Any, i32: Any) -> tuple[Any, Any]:
    header = Struct(
        "magic" / u32,
        "version_major" / u16,
        "version_minor" / u16,
        "utc_offset" / i32,
        "accuracy" / u32,
        "snap_length" / u32,
        "link_type" / u32,
    )
    record = Struct(
        "seconds" / u32,
        "fraction" / u32,
        "captured_length" / Rebuild(u32, len_(this.data)),
        "original_length" / u32,
        "data" / Bytes(this.captured_length),
    )
    return header, record


def _blocks(u16: Any, u32: Any, i16: Any, i64: Any) -> dict[int, Any]:
    option = Struct(
        "code" / u16,
        "length" / Rebuild(u16, len_(this.value)),
        "value" / Aligned(4, Bytes(this.length)),
    )
    options = GreedyRange(option)
    section = Struct(
        "byte_order" / Const(BYTE_ORDER_MAGIC, u32),
        "version_major" / u16,
        "version_minor" / u16,
        "section_length" / i64,
        "options" / options,
    )
    interface = Struct("link_type" / u16, Padding(2), "snap_length" / u32, "options" / options)
    enhanced = Struct(
        "interface" / u32,
        "timestamp_high" / u32,
        "timestamp_low" / u32,
        "captured_length" / Rebuild(u32, len_(this.data)),
        "original_length" / u32,
        "data" / Aligned(4, Bytes(this.captured_length)),
        "options" / options,
    )
    # How much was captured is not said: the smaller of the original length and what the block holds.
    simple = Struct("original_length" / u32, "data" / GreedyBytes)
    old = Struct(
        "interface" / u16,
        "n_drops" / i16,
        "timestamp_high" / u32,
        "timestamp_low" / u32,
        "captured_length" / Rebuild(u32, len_(this.data)),
        "original_length" / u32,
        "data" / Aligned(4, Bytes(this.captured_length)),
        "options" / options,
    )
    bodies = {
        BLOCK_SECTION: section,
        BLOCK_INTERFACE: interface,
        BLOCK_ENHANCED_PACKET: enhanced,
        BLOCK_SIMPLE_PACKET: simple,
        BLOCK_OLD_PACKET: old,
    }
    return {number: _block(number, body, u32) for number, body in bodies.items()}


def _block(number: int, body: Any, u32: Any) -> Any:
    """Return a whole block: its length stands before and behind its body."""
    wrapped = Aligned(4, body)
    return Struct(
        "type" / Const(number, u32),
        "total_length" / Rebuild(u32, lambda context: 12 + len(wrapped.build(context.body))),
        "body" / FixedSized(this.total_length - 12, wrapped),
        "total_length_again" / Rebuild(u32, this.total_length),
    )


_LITTLE, _BIG = _classic(Int16ul, Int32ul, Int32sl), _classic(Int16ub, Int32ub, Int32sb)

PCAP_HEADERS = MappingProxyType({"<": _LITTLE[0], ">": _BIG[0]})
"""The header of a classic file, by byte order as ``struct`` writes it.

Example of ``PCAP_HEADERS["<"]``, from a recording::

    d4c3b2a1 0200 0400 00000000  magic=0xA1B2C3D4, version_major=2, version_minor=4, utc_offset=0
    00000000 00000400 01000000   accuracy=0, snap_length=262144, link_type=1

Size in bytes: ``24``.

Written by programs that capture, read by :mod:`dllama_proto.dissect.capture`.
"""

PCAP_RECORDS = MappingProxyType({"<": _LITTLE[1], ">": _BIG[1]})
"""One packet of a classic file. Its time is in seconds and the fraction that the file's magic number says.

Example of ``PCAP_RECORDS["<"]``, a packet cut after its Ethernet header::

    d7bc046b 2e6f0e00 0e000000    seconds=1795472599, fraction=945966, captured_length=14
    4a000000                      original_length=74
    0000000000000000000000000800  data

Size in bytes: ``16 + captured_length``.

Written by programs that capture, read by :mod:`dllama_proto.dissect.capture`.
"""

PCAPNG_BLOCKS = MappingProxyType(
    {
        "<": _blocks(Int16ul, Int32ul, Int16sl, Int64sl),
        ">": _blocks(Int16ub, Int32ub, Int16sb, Int64sb),
    }
)
"""Every block that is looked into, by byte order and type. ``data`` and ``value`` are padded to 4 bytes.

Example of ``PCAPNG_BLOCKS["<"][BLOCK_SECTION]``::

    0a0d0d0a 1c000000 4d3c2b1a  type=0x0A0D0D0A, total_length=28, byte_order=0x1A2B3C4D
    0100 0000 ffffffffffffffff  version_major=1, version_minor=0, section_length=-1
    1c000000                    total_length_again=28

Size in bytes: ``12 + size(body)``.

Example of ``PCAPNG_BLOCKS["<"][BLOCK_INTERFACE]``::

    01000000 20000000 6500 0000  type=1, total_length=32, link_type=101, padding
    00000000                     snap_length=0
    0900 0100                    code=9, length=1
    09000000                     value
    0000 0000                    code=0, length=0, value
    20000000                     total_length_again=32

Size in bytes: ``12 + size(body)``.

Example of ``PCAPNG_BLOCKS["<"][BLOCK_ENHANCED_PACKET]``, the packet above::

    06000000 30000000 00000000 f9600600  type=6, total_length=48, interface=0, timestamp_high=418041
    ee12860a 0e000000 4a000000           timestamp_low=176558830, captured_length=14, original_length=74
    00000000000000000000000008000000     data
    30000000                             total_length_again=48

Size in bytes: ``12 + size(body)``.

Example of ``PCAPNG_BLOCKS["<"][BLOCK_SIMPLE_PACKET]``, its first 16 bytes::

    03000000 20000000 4a000000        type=3, total_length=32, original_length=74
    00000000000000000000000008000000  data
    20000000                          total_length_again=32

Size in bytes: ``12 + size(body)``.

Example of ``PCAPNG_BLOCKS["<"][BLOCK_OLD_PACKET]``, the same packet::

    02000000 30000000 0000 ffff       type=2, total_length=48, interface=0, n_drops=-1
    f9600600 ee12860a 0e000000        timestamp_high=418041, timestamp_low=176558830, captured_length=14
    4a000000                          original_length=74
    00000000000000000000000008000000  data
    30000000                          total_length_again=48

Size in bytes: ``12 + size(body)``.

Written by :mod:`dllama_proto.dissect.recording` and programs that capture, read by
:mod:`dllama_proto.dissect.capture`.
"""
