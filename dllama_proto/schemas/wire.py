"""The only place that deals with construct itself: kinds of fields, parsing and building exactly.

A schema is a :class:`Record`: a construct ``Struct`` whose fields carry the names of one of our frozen
records, parsed to that record and built from it. From one declaration come construct's own parser and
builder, the incremental reader (:mod:`dllama_proto.schemas.incremental`) and the place of every field
(:mod:`dllama_proto.schemas.layout`). Nothing but a ProtocolError leaves :func:`parse_exactly` and
:func:`build_exactly`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from enum import IntEnum
from functools import cached_property
from io import BytesIO
from typing import Any, Generic, TypeVar

import construct
from construct import Bytes, Int32sl, Int32ul, Int64ul, Struct, this

from dllama_proto.enums import PointerSource
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.formatting import counted

__all__ = [
    "Array",
    "BufferIndex",
    "Bytes",
    "Choice",
    "Count",
    "EnumField",
    "F32",
    "I32",
    "Index",
    "PipeIndex",
    "Record",
    "SizeOf",
    "Text",
    "U32",
    "U64",
    "UnknownCodeError",
    "bare",
    "build_exactly",
    "parse_exactly",
    "this",
]

R = TypeVar("R")

#: C++ ``NnUint``.
U32 = Int32ul
#: C++ ``int``.
I32 = Int32sl
#: C++ ``NnSize`` on a 64-bit machine.
U64 = Int64ul


class Index(construct.FormatField):  # type: ignore[misc]
    """A ``u32`` that is the number of a pipe, or of a buffer: ``source`` says which."""

    def __init__(self, source: PointerSource) -> None:
        super().__init__("<", "L")
        self.source = source


#: The number of one of the net config's pipes.
PipeIndex = Index(PointerSource.PIPE)
#: The number of one of the node config's buffers.
BufferIndex = Index(PointerSource.BUFFER)

#: What construct raises where a value does not fit a field: its own, and what it lets pass from beneath.
_BUILD_ERRORS = (construct.ConstructError, TypeError, ValueError, AttributeError, KeyError, OverflowError)


class UnknownCodeError(construct.MappingError):  # type: ignore[misc]
    """A number that names nothing."""

    def __init__(self, field: EnumField, number: int, path: str) -> None:
        super().__init__(f"{number} is no {field.enum.__name__}", path=path)
        self.field = field
        self.number = number


class EnumField(construct.Adapter):  # type: ignore[misc]
    """An ``i32`` that must be a member of ``enum`` (construct's own Enum lets unknown numbers pass).

    ``members``, by number, are all that the enum has, unless given; they are looked up anew each time, so
    they may become more or fewer.
    """

    def __init__(self, enum: type[IntEnum], members: Mapping[int, IntEnum] | None = None) -> None:
        super().__init__(I32)
        self.enum = enum
        self.members = {member.value: member for member in enum} if members is None else members

    @property
    def expected(self) -> str:
        """The numbers it may have, in words."""
        return "one of " + ", ".join(f"{number} ({self.members[number].name})" for number in self.members)

    def decode(self, number: int, path: str = "") -> IntEnum:
        """Return the member. Raises UnknownCodeError."""
        try:
            return self.members[number]
        except KeyError:
            raise UnknownCodeError(self, number, path) from None

    def _decode(self, obj: int, context: Any, path: str) -> IntEnum:
        return self.decode(obj, path)

    def _encode(self, obj: int, context: Any, path: str) -> int:
        return int(self.decode(obj, path))

    def _emitparse(self, code: Any) -> str:
        code.linkedinstances[id(self)] = self
        return f"linkedinstances[{id(self)}].decode({self.subcon._compileparse(code)})"


class _Float32(construct.Adapter):  # type: ignore[misc]
    """A C++ ``float``, kept bit for bit.

    A processor that widens a signalling NaN makes it a quiet one, so NaNs, which uninitialised memory
    may hold, are moved to a Python float and back by their bits.
    """

    def decode(self, bits: int) -> float:
        """Return the float that these 32 bits are."""
        value: float = struct.unpack("<f", bits.to_bytes(4, "little"))[0]
        if math.isnan(value):
            wide = (bits >> 31 << 63) | (0x7FF << 52) | ((bits & 0x7FFFFF) << 29)
            value = struct.unpack("<d", wide.to_bytes(8, "little"))[0]
        return value

    def encode(self, value: float) -> int:
        """Return the 32 bits of a float. Raises OverflowError where it is too large."""
        if math.isnan(value):
            wide = int.from_bytes(struct.pack("<d", value), "little")
            # A NaN that never was a float may have no bit among the upper ones; it must stay a NaN.
            payload = (wide >> 29 & 0x7FFFFF) or 0x400000
            return (wide >> 63 << 31) | (0xFF << 23) | payload
        return int.from_bytes(struct.pack("<f", value), "little")

    def _decode(self, obj: int, context: Any, path: str) -> float:
        return self.decode(obj)

    def _encode(self, obj: float, context: Any, path: str) -> int:
        try:
            return self.encode(obj)
        except OverflowError as error:
            raise construct.FormatFieldError(str(error), path=path) from None

    def _emitparse(self, code: Any) -> str:
        code.linkedinstances[id(self)] = self
        return f"linkedinstances[{id(self)}].decode({self.subcon._compileparse(code)})"


#: C++ ``float``.
F32 = _Float32(Int32ul)


class Count(construct.Rebuild):  # type: ignore[misc]
    """A ``u32`` that counts the items of field ``of``, plus ``plus``; when building, it follows from them.

    ``limit`` names the field of :class:`~dllama_proto.limits.Limits` that bounds it.
    """

    def __init__(self, of: str, *, limit: str, plus: int = 0) -> None:
        super().__init__(U32, lambda context: len(context[of]) + plus)
        self.of = of
        self.limit = limit
        self.minimum = plus


class Text(construct.Adapter):  # type: ignore[misc]
    """A string: ``u32`` number of bytes, the NUL at their end included, then the bytes.

    Any bytes survive the way to ``str`` and back (what is no UTF-8 becomes surrogates); the NUL is not
    part of the value. ``limit`` names the field of :class:`~dllama_proto.limits.Limits` that bounds the
    number; where ``may_end``, the number 0 stands in place of a whole record and ends a list of them.
    """

    def __init__(self, *, limit: str, may_end: bool = False) -> None:
        super().__init__(construct.Prefixed(U32, construct.GreedyBytes))
        self.limit = limit
        self.may_end = may_end

    def decode(self, data: bytes) -> str:
        """Return the text. Raises ValueError, which says what was expected, without one NUL, at the end."""
        if data[-1:] != b"\0":
            raise ValueError("a NUL at the end")
        if data.index(b"\0") != len(data) - 1:
            raise ValueError("no NUL before the end")
        return data[:-1].decode("utf-8", "surrogateescape")

    def encode(self, text: str) -> bytes:
        """Return the bytes, NUL included. Raises ValueError for text with a NUL in it."""
        if "\0" in text:
            raise ValueError("a NUL within the text")
        return text.encode("utf-8", "surrogateescape") + b"\0"

    def _decode(self, obj: bytes, context: Any, path: str) -> str:
        try:
            return self.decode(obj)
        except ValueError as error:
            raise construct.StringError(f"expected {error}", path=path) from None

    def _encode(self, obj: str, context: Any, path: str) -> bytes:
        try:
            return self.encode(obj)
        except ValueError as error:
            raise construct.StringError(str(error), path=path) from None


class Array(construct.Array):  # type: ignore[misc]
    """As construct's, but errors in building name the item."""

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        count = construct.evaluate(self.count, context)
        if len(obj) != count:
            raise construct.RangeError(f"{counted(count, 'item')}, not {len(obj)}", path=path)
        for index, item in enumerate(obj):
            self.subcon._build(item, stream, context, f"{path}[{index}]")
        return obj


class Choice(construct.Switch):  # type: ignore[misc]
    """One of several records of fixed size: field ``key`` says which, field ``size`` repeats its size.

    ``cases`` are looked up anew each time, so they may become more or fewer.
    """

    def __init__(self, key: str, size: str, cases: Mapping[Any, Record[Any]]) -> None:
        super().__init__(construct.this[key], cases)
        self.key = key
        self.size = size


class SizeOf(construct.Rebuild):  # type: ignore[misc]
    """A ``u32``: the size of the record that ``choice`` chooses; when building, it follows."""

    def __init__(self, choice: Choice) -> None:
        super().__init__(U32, lambda context: choice.cases[context[choice.key]].fixed_size)
        self.choice = choice


class Record(Struct, Generic[R]):  # type: ignore[misc]
    """A Struct that parses to the record class ``cls`` and builds from it.

    Every field of ``cls`` is a subcon of that name; further subcons (counts, sizes) are on the wire only.
    """

    def __init__(self, cls: type[R], *subcons: Any) -> None:
        super().__init__(*subcons)
        self.cls = cls
        self.names = tuple(field.name for field in dataclass_fields(cls))  # type: ignore[arg-type]
        missing = set(self.names) - {subcon.name for subcon in self.subcons}
        if missing:
            raise TypeError(f"{cls.__name__} has fields that its schema lacks: {sorted(missing)}")

    @cached_property
    def indexes(self) -> tuple[tuple[str, PointerSource], ...]:
        """The fields that are numbers of pipes or buffers, and of which of the two."""
        fields = ((subcon.name, bare(subcon)) for subcon in self.subcons)
        return tuple((name, schema.source) for name, schema in fields if isinstance(schema, Index))

    @cached_property
    def fixed_size(self) -> int:
        """Bytes that the record always takes; only for records whose fields are all of fixed size."""
        size: int = self.sizeof()
        return size

    @cached_property
    def _parse_compiled(self) -> Callable[[BytesIO, Any], R]:
        # Construct's own entry sets up a context first, which takes longer than all the rest and which
        # records of fixed size do not look at.
        parse: Callable[[BytesIO, Any], R] = self.compile().parsefunc
        return parse

    def make(self, values: Mapping[str, Any]) -> R:
        """Return the record with these values; those that are on the wire only are dropped."""
        return self.cls(**{name: values[name] for name in self.names})

    def parse_fixed(self, data: bytes | memoryview) -> R:
        """Parse a record of fixed size, by compiled code. Raises UnknownCodeError."""
        return self._parse_compiled(BytesIO(data), None)

    def _parse(self, stream: Any, context: Any, path: str) -> R:
        values = super()._parse(stream, context, path)
        return self.make({name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    def _build(self, obj: R, stream: Any, context: Any, path: str) -> R:
        if not isinstance(obj, self.cls):
            raise construct.ConstructError(f"{type(obj).__name__} is no {self.cls.__name__}", path=path)
        super()._build({name: getattr(obj, name) for name in self.names}, stream, context, path)
        return obj

    def _emitparse(self, code: Any) -> str:
        """Generate a call of the record class: its arguments are read in the order of the fields."""
        code.linkedinstances[id(self)] = self
        arguments = (f"{subcon.name}={subcon._compileparse(code)}" for subcon in self.subcons)
        return f"linkedinstances[{id(self)}].cls({', '.join(arguments)})"

    def _emitbuild(self, code: Any) -> str:
        # Building is never hot; construct then links to the interpreted builder.
        raise NotImplementedError


def bare(schema: Any) -> Any:
    """Return a schema without the name it was given."""
    while isinstance(schema, construct.Renamed):
        schema = schema.subcon
    return schema


def parse_exactly(schema: Record[R], data: bytes | memoryview, path: str, offset: int = 0) -> R:
    """Parse one record of fixed size from exactly ``data``, which lies at byte ``offset`` of its message.

    Raises RemoteProtocolError, whose path begins with ``path``, where sizes differ or a code is unknown.
    """
    if len(data) != schema.fixed_size:
        raise RemoteProtocolError(
            path, expected=f"{schema.fixed_size} bytes", got=str(len(data)), offset=offset
        )
    try:
        return schema.parse_fixed(data)
    except UnknownCodeError:
        # Compiled code knows no paths; construct's own parser, ten times slower, does.
        try:
            schema.parse(bytes(data))
        except UnknownCodeError as error:
            raise _unknown_code(schema, error, path, offset) from None
        raise


def _unknown_code(
    schema: Record[Any], error: UnknownCodeError, path: str, offset: int
) -> RemoteProtocolError:
    names = error.path.split(" -> ")[1:]
    inner: Any = schema
    for name in names:
        for subcon in bare(inner).subcons:
            if subcon.name == name:
                inner = subcon
                break
            offset += subcon.sizeof()
    return RemoteProtocolError(
        ".".join([path, *names]), expected=error.field.expected, got=str(error.number), offset=offset
    )


def build_exactly(schema: Record[Any], record: Any, path: str) -> bytes:
    """Return the bytes of a record.

    Raises LocalProtocolError, whose path begins with ``path``, where a value does not fit its field.
    """
    try:
        data: bytes = schema.build(record)
    except _BUILD_ERRORS as error:
        where = getattr(error, "path", None) or ""
        names = where.split(" -> ")[1:]
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Error in path")]
        raise LocalProtocolError(
            ".".join([path, *names]),
            expected="a value that fits the field",
            got=lines[0] if lines else type(error).__name__,
        ) from error
    return data
