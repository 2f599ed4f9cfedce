"""Capture files: bytes to packets. Classic pcap and pcapng, plain or gzipped, from a file or a pipe.

:func:`read_packets` yields plain tuples, since there are hundreds of thousands in a second of weights. A file
that ends in the middle of something, or goes wrong in the middle, gives what came before; ``Problem`` tells
what was wrong and at which byte. The definition of both formats is :mod:`dllama_proto.schemas.capture_file`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from dllama_proto.errors import ProtocolError
from dllama_proto.exit_codes import ExitCode
from dllama_proto.formatting import counted
from dllama_proto.schemas.capture_file import (
    BLOCK_ENHANCED_PACKET,
    BLOCK_INTERFACE,
    BLOCK_OLD_PACKET,
    BLOCK_SECTION,
    BLOCK_SIMPLE_PACKET,
    BYTE_ORDER_MAGIC,
    OPTION_END,
    OPTION_TS_OFFSET,
    OPTION_TS_RESOLUTION,
    PCAP_MAGIC_MICROSECONDS,
    PCAP_MAGIC_NANOSECONDS,
)

__all__ = ["CaptureError", "Packet", "Problem", "read_packets"]

#: Time in nanoseconds since 1970, link type, the bytes that were captured, how many there had been.
Packet = tuple[int, int, bytes, int]

#: No link carries more at once, and no recorder keeps more; what claims it is not a packet.
_MAX_PACKET = 16 * 1024 * 1024

_BUFFER = 1024 * 1024
_SECOND = 1_000_000_000
_GZIP_MAGIC = b"\x1f\x8b"
#: The first four bytes of a classic file: its byte order, and nanoseconds in a unit of its fractions.
_MAGICS = {
    struct.pack(f"{order}I", magic): (order, unit)
    for order in "<>"
    for magic, unit in ((PCAP_MAGIC_MICROSECONDS, 1000), (PCAP_MAGIC_NANOSECONDS, 1))
}
_SECTION_MAGIC = BLOCK_SECTION.to_bytes(4, "little")


class CaptureError(ProtocolError):
    """A file that is no capture, or of a kind that is not read; ``offset`` is the byte of the file."""

    exit_code = ExitCode.CALLER


@dataclass(frozen=True, slots=True)
class Problem:
    """Where a capture file stops making sense, and why; everything before it was read."""

    offset: int
    text: str


def read_packets(file: BinaryIO, name: str, problem: Callable[[Problem], None]) -> Iterator[Packet]:
    """Yield every packet of a capture; ``name`` names the file in errors.

    Raises CaptureError where the file does not begin as a capture does.
    """
    reader = _Reader(file, name, problem)
    magic = reader.peek(4)
    if reader.is_stopped:
        return iter(())
    if magic in _MAGICS:
        return _classic(reader, *_MAGICS[magic])
    if magic == _SECTION_MAGIC:
        return _blocks(reader)
    if any(known.startswith(magic) for known in (*_MAGICS, _SECTION_MAGIC)):
        problem(
            Problem(len(magic), "the file ends within its first 4 bytes" if magic else "the file is empty")
        )
        return iter(())
    raise CaptureError(
        name, expected="a pcap or pcapng file, or one of them gzipped", got=magic.hex(" "), offset=0
    )


class _Reader:
    """Exact reads, with the byte of the (unpacked) file they are at."""

    def __init__(self, file: BinaryIO, name: str, problem: Callable[[Problem], None]) -> None:
        # A pipe gives what it has; the buffer waits for all that is asked.
        buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(_raw(file), _BUFFER)
        if _peek(buffered, 2) == _GZIP_MAGIC:
            buffered = io.BufferedReader(_Gunzip(buffered), _BUFFER)
        self._file = buffered
        self.name = name
        self._problem = problem
        self.at = 0
        self.is_stopped = False

    def peek(self, n: int) -> bytes:
        """Return the next ``n`` bytes without moving on; fewer at the end."""
        try:
            return _peek(self._file, n)
        except (EOFError, OSError, zlib.error) as error:
            self.stop(f"the gzipped file is damaged: {error}")
            return b""

    def more(self, block: bytes, n: int, what: str) -> bytes:
        """Return ``block`` and what follows it: at least ``n`` bytes in all, or less where the file ends."""
        parts, have = [block], len(block)
        while have < n:
            try:
                data = self._file.read1(_BUFFER)
            except (EOFError, OSError, zlib.error) as error:
                self.stop(f"the gzipped file is damaged or cut: {error}")
                return b""
            if not data:
                if have:
                    self.at -= have
                    self.stop(f"the file ends within {what}: {counted(n - have, 'byte')} missing")
                return b""
            parts.append(data)
            have += len(data)
            self.at += len(data)
        return b"".join(parts)

    def fail(self, left: int, text: str) -> None:
        """Report why nothing more is read; the place is ``left`` bytes before the end of what was read."""
        self.at -= left
        self.stop(text)

    def stop(self, text: str) -> None:
        """Report why nothing more is read, at the current byte."""
        self.is_stopped = True
        self._problem(Problem(self.at, text))


class _Gunzip(io.RawIOBase):
    """Unpacks as far as there is something to unpack (gzip.GzipFile gives nothing near the end of a cut file)."""

    def __init__(self, packed: io.BufferedReader) -> None:
        super().__init__()
        self._packed = packed
        self._unpack = zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._unpack.eof:
                # Another member may follow; zeros are padding.
                rest = self._unpack.unused_data.lstrip(b"\0") or self._packed.read1(_BUFFER).lstrip(b"\0")
                if not rest:
                    return 0
                self._unpack = zlib.decompressobj(wbits=31)
            else:
                rest = self._unpack.unconsumed_tail or self._packed.read1(_BUFFER)
                if not rest:
                    raise EOFError("it ends early")
            data = self._unpack.decompress(rest, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


def _raw(file: BinaryIO) -> io.RawIOBase:
    return cast("io.RawIOBase", getattr(file, "raw", file))


def _peek(file: io.BufferedReader, n: int) -> bytes:
    data = file.peek(n)[:n]
    if 0 < len(data) < n and file.seekable():
        # A peek reads once, which may have given less.
        at = file.tell()
        data = file.read(n)
        file.seek(at)
    return data


# Classic pcap -----------------------------------------------------------------------------------------


def _classic(reader: _Reader, order: str, unit: int) -> Iterator[Packet]:
    block = reader.more(b"", 24, "the file header")
    if len(block) < 24:
        return
    # The upper bits of the last field tell of checksums at the end of frames, which IP lengths leave out.
    link_type = struct.unpack_from(order + "I", block, 20)[0] & 0xFFFF
    record = struct.Struct(order + "IIII").unpack_from
    # Whole blocks are read and cut up here: two reads a packet would take longer than all the rest.
    at, size = 24, len(block)
    while True:
        if size - at < 16:
            block = reader.more(block[at:], 16, "a packet's header")
            at, size = 0, len(block)
            if size < 16:
                return
        seconds, fraction, captured, original = record(block, at)
        if captured > _MAX_PACKET:
            reader.fail(size - at - 8, f"a packet of {captured} bytes: the file is damaged from here on")
            return
        end = at + 16 + captured
        if end > size:
            block = reader.more(block[at:], 16 + captured, "a packet")
            at, size, end = 0, len(block), 16 + captured
            if size < end:
                return
        yield seconds * _SECOND + fraction * unit, link_type, block[at + 16 : end], original
        at = end


# pcapng -----------------------------------------------------------------------------------------------


_SMALLEST_BLOCK = 12
_BYTE_ORDERS = {struct.pack(f"{order}I", BYTE_ORDER_MAGIC): order for order in "<>"}
_ENHANCED = {order: struct.Struct(order + "IIIII").unpack_from for order in "<>"}


@dataclass(slots=True)
class _Interface:
    link_type: int
    snap_length: int
    #: Nanoseconds are ticks * numerator // denominator + offset.
    numerator: int = 1000
    denominator: int = 1
    offset: int = 0

    def time(self, high: int, low: int) -> int:
        return (high << 32 | low) * self.numerator // self.denominator + self.offset


def _blocks(reader: _Reader) -> Iterator[Packet]:
    order, head, word = "<", struct.Struct("<II").unpack_from, struct.Struct("<I").unpack_from
    interfaces: list[_Interface] = []
    block, at, size = b"", 0, 0
    while True:
        if size - at < _SMALLEST_BLOCK:
            block = reader.more(block[at:], _SMALLEST_BLOCK, "a block's header")
            at, size = 0, len(block)
            if size < _SMALLEST_BLOCK:
                return
        if block[at : at + 4] == _SECTION_MAGIC:
            magic = block[at + 8 : at + 12]
            if magic not in _BYTE_ORDERS:
                reader.fail(size - at - 8, f"a section with byte-order magic {magic.hex(' ')}")
                return
            order, interfaces = _BYTE_ORDERS[magic], []
            head, word = struct.Struct(order + "II").unpack_from, struct.Struct(order + "I").unpack_from
        number, length = head(block, at)
        if length < _SMALLEST_BLOCK or length % 4 or length > _MAX_PACKET + 4096:
            reader.fail(
                size - at - 4, f"a block of {counted(length, 'byte')}: the file is damaged from here on"
            )
            return
        if at + length > size:
            block = reader.more(block[at:], length, "a block")
            at, size = 0, len(block)
            if size < length:
                return
        end = at + length
        if word(block, end - 4)[0] != length:
            reader.fail(
                size - end + 4, "a block whose two lengths differ: the file is damaged from here on"
            )
            return
        try:
            packet = _packet(number, block[at + 8 : end - 4], order, interfaces)
        except (struct.error, ValueError, IndexError) as error:
            reader.fail(size - at, f"a block of type {number} that cannot be read: {error}")
            return
        if packet is not None:
            yield packet
        at = end


def _packet(number: int, body: bytes, order: str, interfaces: list[_Interface]) -> Packet | None:
    """Return the packet in a block, if it holds one, and learn of interfaces.

    Raises ValueError, IndexError and struct.error for what is not as it should be.
    """
    if number == BLOCK_ENHANCED_PACKET:
        index, high, low, captured, original = _ENHANCED[order](body)
        start = 20
    elif number == BLOCK_OLD_PACKET:
        index, _, high, low, captured, original = struct.unpack_from(order + "HHIIII", body)
        start = 20
    elif number == BLOCK_SIMPLE_PACKET:
        (original,) = struct.unpack_from(order + "I", body)
        index, high, low, start = 0, 0, 0, 4
        limit = interfaces[0].snap_length or original
        captured = min(original, limit, len(body) - 4)
    else:
        if number == BLOCK_INTERFACE:
            interfaces.append(_interface(body, order))
        return None
    if captured > len(body) - start:
        raise ValueError(f"{counted(captured, 'byte')} captured in a block that has {len(body) - start}")
    interface = interfaces[index]
    return interface.time(high, low), interface.link_type, body[start : start + captured], original


def _interface(body: bytes, order: str) -> _Interface:
    link_type, _, snap_length = struct.unpack_from(order + "HHI", body)
    interface = _Interface(link_type, snap_length)
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == OPTION_END:
            break
        if code == OPTION_TS_RESOLUTION and length == 1:
            exponent = value[0] & 0x7F
            interface.numerator = _SECOND
            interface.denominator = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == OPTION_TS_OFFSET and length == 8:
            interface.offset = struct.unpack(order + "q", value)[0] * _SECOND
        at += 4 + (length + 3) // 4 * 4
    return interface
