"""Reads a message piece by piece as its schema says, so that no byte is parsed twice.

A message has no length in front: what comes next follows from what came before. A reader therefore is a
generator: it yields how many bytes it needs next, is sent exactly those, and returns the record. Its pieces
are the longest runs of fields of fixed size, and strings. Counts, lengths and sizes are held against their
limits here, before they are used.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar

import construct

from dllama_proto.errors import RemoteProtocolError
from dllama_proto.limits import Limits
from dllama_proto.schemas.wire import (
    U32,
    Array,
    Choice,
    Count,
    Record,
    SizeOf,
    Text,
    bare,
    parse_exactly,
)

__all__ = ["Piece", "Reader", "read_message"]

R = TypeVar("R")


class Piece(NamedTuple):
    """What a reader needs next: ``size`` bytes, at byte ``offset`` of the message, of field ``path``."""

    size: int
    path: str
    offset: int


#: Yields pieces, is sent the bytes of each, returns what they mean.
Reader = Generator[Piece, memoryview, R]


def read_message(schema: Record[R], path: str, limits: Limits) -> Reader[R | None]:
    """Read one message; ``path`` names it.

    Returns None where the schema begins with a string that may end a list, and it was the end. Raises
    RemoteProtocolError.
    """
    return _read_record(schema, path, _Cursor(limits))


class _Cursor:
    """How far a message has been read, and how much its counts have claimed so far."""

    def __init__(self, limits: Limits) -> None:
        self.offset = 0
        self._limits = limits
        self._claimed: dict[str, int] = {}

    def check_count(self, count: Count, value: int, path: str, offset: int) -> None:
        """Hold a count against its limit, together with all counts under the same limit before it."""
        limit: int = getattr(self._limits, count.limit)
        total = self._claimed.get(count.limit, 0) + value
        if not count.minimum <= value or total > limit:
            together = f" ({total} with those before it)" if total > value else ""
            raise RemoteProtocolError(
                path,
                expected=f"{count.minimum} to {limit}",
                got=f"{value}{together}",
                offset=offset,
                hint=f"Limits.{count.limit}",
            )
        self._claimed[count.limit] = total

    def check_length(self, text: Text, length: int, path: str) -> None:
        """Hold the length of a string, whose four bytes have just been passed, against its limit."""
        limit: int = getattr(self._limits, text.limit)
        if not 1 <= length <= limit:
            raise RemoteProtocolError(
                path,
                expected=f"a string of 1 to {limit} bytes",
                got=f"{length}",
                offset=self.offset - 4,
                hint=f"Limits.{text.limit}",
            )


# What a schema is read as ---------------------------------------------------------------------------


class _Run(Record[dict[str, Any]]):
    """Fields of fixed size that follow each other; parsed to a dictionary."""

    def __init__(self, subcons: list[Any]) -> None:
        construct.Struct.__init__(self, *subcons)
        self.cls = dict
        self.names = tuple(subcon.name for subcon in subcons)


@dataclass(frozen=True, slots=True)
class _RunStep:
    """``checks`` are the fields that later ones go by: name, schema, place within the run."""

    run: _Run
    size: int
    checks: tuple[tuple[str, Count | SizeOf, int], ...]


@dataclass(frozen=True, slots=True)
class _TextStep:
    """The bytes of a string; its length was the last field of the run before, as ``length_name``."""

    name: str
    length_name: str
    text: Text


@dataclass(frozen=True, slots=True)
class _ItemsStep:
    name: str
    array: Array
    item: Record[Any]


@dataclass(frozen=True, slots=True)
class _ChoiceStep:
    name: str
    choice: Choice


_Step = _RunStep | _TextStep | _ItemsStep | _ChoiceStep


@cache
def _steps(schema: Record[Any]) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    run: list[Any] = []
    for subcon in schema.subcons:
        inner = bare(subcon)
        if isinstance(inner, Text):
            length_name = f"{subcon.name}_length"
            run.append(length_name / U32)
            steps += _end_run(run)
            steps.append(_TextStep(subcon.name, length_name, inner))
        elif isinstance(inner, construct.Array):
            steps += _end_run(run)
            steps.append(_ItemsStep(subcon.name, inner, bare(inner.subcon)))
        elif isinstance(inner, Choice):
            steps += _end_run(run)
            steps.append(_ChoiceStep(subcon.name, inner))
        else:
            run.append(subcon)
    return (*steps, *_end_run(run))


def _end_run(subcons: list[Any]) -> list[_Step]:
    """Return the run of these fields, if there are any, and begin another."""
    if not subcons:
        return []
    checks = []
    size = 0
    for subcon in subcons:
        if isinstance(bare(subcon), Count | SizeOf):
            checks.append((subcon.name, bare(subcon), size))
        size += subcon.sizeof()
    run = _Run(list(subcons))
    subcons.clear()
    return [_RunStep(run, size, tuple(checks))]


# Reading ----------------------------------------------------------------------------------------------


def _read_record(schema: Record[R], path: str, cursor: _Cursor) -> Reader[R | None]:
    values: dict[str, Any] = {}
    for step in _steps(schema):
        match step:
            case _RunStep(run, size, checks):
                data = yield Piece(size, path, cursor.offset)
                values.update(parse_exactly(run, data, path, cursor.offset))
                for name, field, offset in checks:
                    where = (f"{path}.{name}", cursor.offset + offset)
                    if isinstance(field, Count):
                        cursor.check_count(field, values[name], *where)
                    else:
                        _check_size(field.choice, values, *where)
                cursor.offset += size
            case _TextStep(name, length_name, text):
                if text.may_end and not values[length_name]:
                    return None
                values[name] = yield from _read_text(text, values[length_name], f"{path}.{name}", cursor)
            case _ItemsStep(name, array, item):
                items = []
                for index in range(array.count(values)):
                    items.append((yield from _read_record(item, f"{path}.{name}[{index}]", cursor)))
                values[name] = tuple(items)
            case _ChoiceStep(name, choice):
                chosen = choice.cases[values[choice.key]]
                data = yield Piece(values[choice.size], f"{path}.{name}", cursor.offset)
                values[name] = parse_exactly(chosen, data, f"{path}.{name}", cursor.offset)
                cursor.offset += len(data)
    return schema.make(values)


def _read_text(text: Text, length: int, path: str, cursor: _Cursor) -> Reader[str]:
    cursor.check_length(text, length, path)
    data = bytes((yield Piece(length, path, cursor.offset)))
    try:
        value = text.decode(data)
    except ValueError as error:
        raise RemoteProtocolError(path, expected=str(error), got=repr(data), offset=cursor.offset) from None
    cursor.offset += length
    return value


def _check_size(choice: Choice, values: dict[str, Any], path: str, offset: int) -> None:
    """Hold a size that the wire states against the one that follows from what was chosen."""
    key = values[choice.key]
    size = choice.cases[key].fixed_size
    if values[choice.size] != size:
        raise RemoteProtocolError(
            path, expected=f"{size} for {key.name}", got=str(values[choice.size]), offset=offset
        )
