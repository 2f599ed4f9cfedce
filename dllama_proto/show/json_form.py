"""Events as JSON: one object each, as ``events.schema.json`` describes them."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from enum import Enum, IntEnum
from functools import cache
from importlib.resources import files
from typing import Any

from dllama_proto.dissect.dissection import Dissection
from dllama_proto.dissect.events import (
    ClosedEvent,
    FaultEvent,
    Forward,
    MessageEvent,
    MissingEvent,
    NoticeEvent,
    SliceEvent,
    Stream,
    UnexplainedEvent,
    WeightEvent,
    WireEvent,
)
from dllama_proto.show.values import Values

__all__ = ["FORMAT_VERSION", "event_json", "events_schema", "plain", "totals_json"]

#: Goes up when something that was there changes its meaning or goes away; new fields do not count.
FORMAT_VERSION = 1


@cache
def events_schema() -> dict[str, Any]:
    """Return the JSON Schema of the objects of ``dllama-proto dissect --json``."""
    text = files("dllama_proto.show").joinpath("events.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def plain(value: Any) -> Any:
    """Return a record as JSON has it: enums by name, bytes as hex, floats that are no numbers as text.

    Texts stay as they are: what of them JSON cannot have, :func:`~dllama_proto.json_text.json_text` replaces.
    """
    if isinstance(value, IntEnum | Enum):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | memoryview):
        return value.hex()
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value


def event_json(event: WireEvent, *, raw: bool = False, values: Values | None = None) -> dict[str, Any]:
    """Return an event; with its bytes where ``raw``."""
    result: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "kind": event.kind.value,
        "time_ns": event.time,
        "began_ns": event.began,
        "stream": None if event.stream is None else _stream(event.stream),
        "offset": event.offset,
        "size": event.size,
    }
    match event:
        case MessageEvent():
            result["message"] = plain(event.message)
            result["forward"] = _forward(event.forward)
        case WeightEvent():
            result["header"] = plain(event.header)
            result |= {"data_size": event.data_size, "missing": event.missing, "expert": event.expert}
            result["shape"] = None if event.shape is None else plain(event.shape)
        case SliceEvent():
            result["forward"] = _forward(event.forward)
            result["transfer"] = plain(event.transfer)
            result |= {"row": event.row, "position": event.position, "pipe": event.pipe}
            result["place"] = plain(event.place)
            result["missing"] = event.missing
            if values is not None:
                result["values"] = plain(values)
        case MissingEvent():
            result["within"] = event.within
        case UnexplainedEvent():
            result["reason"] = event.reason
        case FaultEvent():
            result |= {name: getattr(event, name) for name in ("path", "expected", "got", "hint")}
        case ClosedEvent():
            result |= {"phase": event.phase.name, "reset": event.reset}
        case NoticeEvent():
            result["text"] = event.text
        case _:
            pass
    if raw:
        result["raw"] = event.raw.hex()
    return result


def totals_json(dissection: Dissection) -> dict[str, Any]:
    """Return the last object: what became of everything."""
    head = {"version": FORMAT_VERSION, "kind": "totals", "file": dissection.name}
    return head | dict(plain(dissection.totals))


def _stream(stream: Stream) -> dict[str, Any]:
    return {
        "connection": stream.connection,
        "source": str(stream.source),
        "destination": str(stream.destination),
        "link": stream.link.value,
        "session": stream.session,
        "sender": stream.sender,
        "receiver": stream.receiver,
    }


def _forward(forward: Forward | None) -> dict[str, Any] | None:
    return None if forward is None else dict(plain(forward))
