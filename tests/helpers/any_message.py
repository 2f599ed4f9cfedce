"""Any record of any message: made by its schema, so that a new message needs no list here."""

from __future__ import annotations

from typing import Any

import construct
from hypothesis import strategies as st

from dllama_proto.schemas.wire import F32, Choice, EnumField, Index, Record, Text, bare

__all__ = ["records"]

#: Items of a list. Limits allow many more, but lists of lists grow.
_MAX_ITEMS = 3

_INTEGERS = {"L": (0, 2**32 - 1), "l": (-(2**31), 2**31 - 1), "Q": (0, 2**64 - 1)}


def records(schema: Record[Any]) -> st.SearchStrategy[Any]:
    """Any record that a schema can build; sensible ones are rare among them."""
    return _record(schema)


@st.composite
def _record(draw: st.DrawFn, schema: Record[Any]) -> Any:
    values: dict[str, Any] = {}
    for subcon in schema.subcons:
        inner = bare(subcon)
        if not isinstance(inner, construct.Rebuild):
            values[subcon.name] = draw(_field(inner, values))
    for subcon in schema.subcons:
        inner = bare(subcon)
        if isinstance(inner, construct.Rebuild):
            values[subcon.name] = inner.func(values)
    return schema.make(values)


def _field(schema: Any, values: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema:
        case Record():
            return _record(schema)
        case construct.Array():
            return st.lists(_field(bare(schema.subcon), {}), max_size=_MAX_ITEMS).map(tuple)
        case Choice():
            return _record(schema.cases[values[schema.key]])
        case EnumField():
            return st.sampled_from(list(schema.members.values()))
        case Text():
            return st.binary(max_size=40).map(
                lambda data: data.replace(b"\0", b"?").decode("utf-8", "surrogateescape")
            )
        case construct.Bytes():
            return st.binary(min_size=schema.length, max_size=schema.length)
        case Index():
            return st.integers(*_INTEGERS["L"])
        case construct.FormatField():
            return st.integers(*_INTEGERS[schema.fmtstr[-1]])
    if schema is F32:
        return st.integers(*_INTEGERS["L"]).map(F32.decode)
    raise TypeError(f"no strategy for {schema}")
