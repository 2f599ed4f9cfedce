"""``dllama-proto wireshark``: a Wireshark dissector in Lua, made from the schemas and the phase table.

``wireshark.lua`` has what reads and shows; what is read comes from here: every record as a Lua table and every
field as a filter, named for the record it stands in (``dllama.op.code``, ``dllama.pipe.size.x``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from importlib.resources import files
from typing import Any

import construct

from dllama_proto._phases import ACK_PHASES, FIRST_PHASE, ROOT_LINK, Phase, Role, Signal
from dllama_proto.dissect.events import Kind
from dllama_proto.enums import SyncType
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Refusal, WeightHeader
from dllama_proto.names import LAYER_PREFIX
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.handshake import ACK_NUMBER
from dllama_proto.schemas.refusal import REFUSAL_BYTES
from dllama_proto.schemas.wire import (
    F32,
    I32,
    U32,
    U64,
    Array,
    Choice,
    Count,
    EnumField,
    Index,
    Record,
    Text,
    bare,
)

__all__ = ["make_dissector"]

#: What a filter of a message begins with, and the message's kind.
_MESSAGES: Mapping[type, tuple[str, Kind]] = {
    Greeting: ("greeting", Kind.GREETING),
    NetConfig: ("net_config", Kind.NET_CONFIG),
    NodeConfig: ("node_config", Kind.NODE_CONFIG),
    WeightHeader: ("weight", Kind.WEIGHT),
    ControlPacket: ("control", Kind.CONTROL),
    Refusal: ("refusal", Kind.REFUSAL),
}
_SIGNAL_OF_MESSAGE = {
    Signal.GREETING: Greeting,
    Signal.NET_CONFIG: NetConfig,
    Signal.NODE_CONFIG: NodeConfig,
    Signal.WEIGHT_HEADER: WeightHeader,
    Signal.FORWARD: ControlPacket,
}
#: What construct calls it, what Lua does, and how Wireshark shows it.
_NUMBERS = ((U32, "u32", "uint32"), (I32, "i32", "int32"), (U64, "u64", "uint64"), (F32, "f32", "float"))


def make_dissector() -> str:
    """Return the Lua program."""
    template = files("dllama_proto.show").joinpath("wireshark.lua").read_text(encoding="utf-8")
    return template.replace("--@SCHEMAS@", "\n".join(_generated()))


def _generated() -> Iterator[str]:
    tables = _Tables()
    for cls, (prefix, _) in _MESSAGES.items():
        tables.add(cls.__name__, prefix, MESSAGES[cls])
    yield from tables.lines()
    yield f'local LAYER_PREFIX = "{LAYER_PREFIX}"'
    yield f"local ACK_VALUE = {ACK_NUMBER}"
    yield f"local REFUSAL_VALUE = {int.from_bytes(REFUSAL_BYTES, 'little')}"
    yield f"local SYNC_WITH_ROOT, SYNC_NODE_SLICES = {SyncType.WITH_ROOT}, {SyncType.NODE_SLICES}"
    names = ", ".join(f'{phase.name} = "{kind.name}"' for phase, kind in ACK_PHASES.items())
    yield f"local ACK_NAMES = {{ {names} }}"
    yield from _turns("ROOT", Role.ROOT)
    yield from _turns("WORKER", Role.WORKER)
    yield "local PEER_TURNS = { SLICES = { next = {} } }"


# Records ----------------------------------------------------------------------------------------------


class _Tables:
    """Lua tables of records, and the fields they need."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}
        self._enums: dict[str, Mapping[int, IntEnum]] = {}
        self._records: dict[str, list[str]] = {}

    def add(self, name: str, prefix: str, record: Record[Any]) -> None:
        """Add a record whose filters begin with ``prefix``, and all that are part of it."""
        if name in self._records:
            return
        rows = self._records[name] = []
        for subcon in record.subcons:
            rows.append(self._row(record, subcon.name, f"{prefix}.{subcon.name}", bare(subcon)))

    def lines(self) -> Iterator[str]:
        """Yield the program's lines: enums, fields, records."""
        for name, enum in self._enums.items():
            members = ", ".join(f'[{number}] = "{member.name}"' for number, member in enum.items())
            yield f"local {name} = {{ {members} }}"
        yield from self._fields.values()
        yield "local SCHEMAS = {"
        for name, rows in self._records.items():
            yield f'  ["{name}"] = {{'
            yield from (f"    {row}," for row in rows)
            yield "  },"
        yield "}"

    def _row(self, record: Record[Any], name: str, filter_name: str, schema: Any) -> str:
        row = f'{{ name = "{name}", '
        if isinstance(schema, Text):
            self._field(filter_name, name, "string")
            end = ", may_end = true" if schema.may_end else ""
            limit = getattr(DEFAULT_LIMITS, schema.limit)
            return f'{row}kind = "text", max = {limit}, filter = "{filter_name}"{end} }}'
        if isinstance(schema, Record):
            self.add(filter_name, filter_name, schema)
            return f'{row}kind = "record", schema = "{filter_name}" }}'
        if isinstance(schema, Array):
            # Items are named for themselves: ops are filtered as dllama.op.
            item = name.removesuffix("s")
            self.add(item, item, bare(schema.subcon))
            count, plus = _count_of(name, record)
            return f'{row}kind = "array", schema = "{item}", count = "{count}", plus = {plus} }}'
        if isinstance(schema, Choice):
            cases = []
            for code, config in schema.cases.items():
                part = code.name.lower() if len(config.subcons) > 1 or config.fixed_size > 1 else "empty"
                self.add(part, part, config)
                cases.append(f'[{int(code)}] = "{part}"')
            text = ", ".join(cases)
            return f'{row}kind = "choice", key = "{schema.key}", size = "{schema.size}", cases = {{ {text} }} }}'
        if isinstance(schema, construct.Bytes):
            self._field(filter_name, name, "bytes")
            return f'{row}kind = "bytes", size = {schema.sizeof()}, filter = "{filter_name}" }}'
        return self._number(row, name, filter_name, schema)

    def _number(self, row: str, name: str, filter_name: str, schema: Any) -> str:
        while isinstance(schema, construct.Rebuild):
            schema = schema.subcon
        if isinstance(schema, EnumField):
            enum = f"E_{schema.enum.__name__}"
            self._enums[enum] = schema.members
            self._field(filter_name, name, "int32", f", base.DEC, {enum}")
            return f'{row}kind = "i32", filter = "{filter_name}", codes = {enum} }}'
        for known, kind, shown in _NUMBERS:
            if schema is known or (known is U32 and isinstance(schema, Index)):
                self._field(filter_name, name, shown)
                return f'{row}kind = "{kind}", filter = "{filter_name}" }}'
        raise TypeError(f"{filter_name}: {schema!r} has no counterpart in Lua")

    def _field(self, filter_name: str, name: str, shown: str, more: str = "") -> None:
        self._fields[filter_name] = (
            f'F["{filter_name}"] = ProtoField.{shown}("dllama.{filter_name}", "{name}"{more})'
        )


def _count_of(array: str, record: Record[Any]) -> tuple[str, int]:
    """Return the field of a record that counts the items of another, and what to add to it."""
    for subcon in record.subcons:
        field = bare(subcon)
        if isinstance(field, Count) and field.of == array:
            return subcon.name, -field.minimum
    raise TypeError(f"{record.cls.__name__}: no field counts the items of {array}")


# Phases -----------------------------------------------------------------------------------------------


def _turns(name: str, role: Role) -> Iterator[str]:
    """Yield what one side says in each of its phases, and which of its phases follows."""
    own = [phase for phase, turn in ROOT_LINK.items() if turn.speaker is role]
    yield f"local {name}_TURNS = {{"
    for phase in own:
        signals = [signal for signal in ROOT_LINK[phase].next if signal is not Signal.PAYLOAD_DONE]
        if not signals:
            continue
        leads = ", ".join(
            f'{signal.name} = "{_own_next(ROOT_LINK[phase].next[signal], role).name}"' for signal in signals
        )
        message = _SIGNAL_OF_MESSAGE.get(signals[0])
        kind = Kind.ACK if message is None else _MESSAGES[message][1]
        said = "Ack" if message is None else message.__name__
        yield (
            f'  {phase.name} = {{ message = "{said}", kind = "{kind}", signal = "{signals[0].name}", '
            f"next = {{ {leads} }} }},"
        )
    # After its last word a side only sends slices, or nothing.
    yield "  SLICES = { next = {} }, CLOSED = { next = {} }, REFUSED = { next = {} },"
    yield "}"
    yield f'local {name}_FIRST = "{_own_next(FIRST_PHASE, role).name}"'


def _own_next(phase: Phase, role: Role) -> Phase:
    """Return the next phase in which this side speaks, from ``phase`` on.

    Payloads are no phase here: they follow what announces them. A side that has no word any more, only
    slices, stays in SLICES.
    """
    if phase in (Phase.CLOSED, Phase.REFUSED):
        return phase
    found: list[Phase] = [phase]
    for candidate in found:
        turn = ROOT_LINK[candidate]
        if turn.speaker is role and Signal.PAYLOAD_DONE not in turn.next:
            return candidate
        found += [after for after in turn.next.values() if after not in found]
    return Phase.SLICES
