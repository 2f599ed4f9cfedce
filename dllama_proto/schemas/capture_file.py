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

#: The value of ``OPTION_TS_RESOLUTION``: a power of 10, or with the highest bit set of 2.
TS_RESOLUTION = Int8ub


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

#: The header of a classic file, by byte order as ``struct`` writes it.
PCAP_HEADERS = MappingProxyType({"<": _LITTLE[0], ">": _BIG[0]})

#: One packet of a classic file.
PCAP_RECORDS = MappingProxyType({"<": _LITTLE[1], ">": _BIG[1]})

#: Every block that is looked into, by byte order and type.
PCAPNG_BLOCKS = MappingProxyType(
    {
        "<": _blocks(Int16ul, Int32ul, Int16sl, Int64sl),
        ">": _blocks(Int16ub, Int32ub, Int16sb, Int64sb),
    }
)
