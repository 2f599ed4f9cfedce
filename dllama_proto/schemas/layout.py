"""Where the fields of a message lie: a walk along a schema and a record, to name bytes by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import construct

from dllama_proto.schemas.wire import Choice, Record, Text, bare

__all__ = ["FieldSpan", "field_spans", "offset_of"]


@dataclass(frozen=True, slots=True)
class FieldSpan:
    """One field that has no parts: ``size`` bytes from byte ``offset``; ``schema`` is its construct."""

    path: str
    offset: int
    size: int
    value: Any
    schema: Any


def field_spans(schema: Record[Any], record: Any, path: str, offset: int = 0) -> Iterator[FieldSpan]:
    """Yield every field of a message in the order on the wire; ``path`` names the message.

    The record must be one that can be built.
    """
    return _record(schema, record, path, offset)


def offset_of(schema: Record[Any], record: Any, path: str, field_path: str) -> int | None:
    """Return the first byte of a field, or of a group of fields, of a message; None for one it lacks."""
    for span in field_spans(schema, record, path):
        if span.path == field_path or span.path.startswith((f"{field_path}.", f"{field_path}[")):
            return span.offset
    return None


def _record(schema: Record[Any], record: Any, path: str, offset: int) -> Iterator[FieldSpan]:
    values = {name: getattr(record, name) for name in schema.names}
    for subcon in schema.subcons:
        inner = bare(subcon)
        if isinstance(inner, construct.Rebuild):
            values[subcon.name] = inner.func(values)
        if isinstance(inner, Choice):
            inner = bare(inner.cases[values[inner.key]])
        for span in _field(inner, values[subcon.name], f"{path}.{subcon.name}", offset):
            yield span
            offset = span.offset + span.size


def _field(schema: Any, value: Any, path: str, offset: int) -> Iterator[FieldSpan]:
    if isinstance(schema, Record):
        yield from _record(schema, value, path, offset)
    elif isinstance(schema, construct.Array):
        for index, item in enumerate(value):
            for span in _field(bare(schema.subcon), item, f"{path}[{index}]", offset):
                yield span
                offset = span.offset + span.size
    elif isinstance(schema, Text):
        yield FieldSpan(path, offset, 4 + len(schema.encode(value)), value, schema)
    else:
        yield FieldSpan(path, offset, schema.sizeof(), value, schema)
