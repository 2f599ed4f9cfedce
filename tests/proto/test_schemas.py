"""Schemas: known bytes both ways, one declaration read in three ways that agree, nothing lost in between."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_ops.testing import golden_names
from dllama_proto import messages
from dllama_proto.enums import FloatType, OpCode
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.messages import (
    ControlPacket,
    Greeting,
    NetConfig,
    NodeConfig,
    OpParams,
    Peer,
    Pointer,
    RopeConfig,
    Size3D,
    WeightHeader,
)
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas._size import SIZE_3D
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.incremental import read_message
from dllama_proto.schemas.layout import field_spans, offset_of
from dllama_proto.schemas.node_config import POINTER
from dllama_proto.schemas.op_configs import OP_CONFIGS
from dllama_proto.schemas.wire import F32, Record, Text, bare, build_exactly, parse_exactly
from dllama_proto.verify import verify_net_config, verify_node_config
from tests.proto import configs

_OP_VECTORS = files("dllama_ops.testing") / "vectors"

#: Messages small enough to be written by hand, from PROTOCOL's tables.
_VECTORS: list[tuple[Any, str]] = [
    (
        Greeting(2, 0, (Peer("a.b", 9991),)),
        "02000000 00000000 04000000 612e6200 07270000",
    ),
    (Greeting(1, 0, ()), "01000000 00000000"),
    (
        NetConfig(2, 4, (messages.PipeConfig(Size3D.of(FloatType.Q80, y=2, x=64), "ZQ"),), ()),
        "02000000 04000000 01000000"
        "03000000 01000000 02000000 40000000 8000000000000000 8800000000000000 8800000000000000"
        "03000000 5a5100"
        "00000000",
    ),
    (NodeConfig(3, (), ()), "03000000 00000000 00000000"),
    (
        WeightHeader("wo", 7, 2**40, 18),
        "03000000 776f00 07000000 0000000000010000 1200000000000000",
    ),
    (ControlPacket(31, 32), "1f000000 20000000"),
]


def _drive(schema: Record[Any], path: str, data: bytes) -> Any:
    """Read a message from exactly its pieces, which must follow each other and use up ``data``."""
    reader = read_message(schema, path, DEFAULT_LIMITS)
    at = 0
    try:
        piece = next(reader)
        while True:
            assert piece.offset == at
            assert piece.size > 0
            at += piece.size
            assert at <= len(data)
            piece = reader.send(memoryview(data)[piece.offset : at])
    except StopIteration as stop:
        assert at == len(data)
        return stop.value


def _read_three_ways(message: Any) -> bytes:
    """Build a message, read it with the incremental reader and with construct, and place its fields."""
    schema = MESSAGES[type(message)]
    name = type(message).__name__
    data = build_exactly(schema, message, name)
    # NaN differs from itself, so records are compared by the bytes that they make.
    assert build_exactly(schema, _drive(schema, name, data), name) == data
    assert build_exactly(schema, schema.parse(data), name) == data
    spans = list(field_spans(schema, message, name))
    assert [span.offset for span in spans[:1]] == [0]
    assert all(a.offset + a.size == b.offset for a, b in pairwise(spans))
    assert spans[-1].offset + spans[-1].size == len(data)
    return data


@pytest.mark.parametrize(("message", "hexadecimal"), _VECTORS)
def test_known_bytes(message: Any, hexadecimal: str) -> None:
    data = bytes.fromhex(hexadecimal)
    assert _read_three_ways(message) == data
    assert _drive(MESSAGES[type(message)], "Message", data) == message


def test_the_ack() -> None:
    assert bytes.fromhex("aaaa6701") == ACK_BYTES
    assert int.from_bytes(ACK_BYTES, "little") == 23571114


@pytest.mark.parametrize(
    "message", [configs.GREETING, configs.NET, configs.NODE], ids=lambda m: type(m).__name__
)
def test_the_sample_cluster(message: Any) -> None:
    data = _read_three_ways(message)
    assert _drive(MESSAGES[type(message)], "Message", data) == message


@pytest.mark.parametrize("case", golden_names())
def test_recorded_configs_survive(case: str) -> None:
    with (_OP_VECTORS / f"{case}.npz").open("rb") as file, np.load(file) as vector:
        net_data, node_data = vector["net_config"].tobytes(), vector["node_config"].tobytes()
    for data in (net_data, node_data):
        assert data.startswith(ACK_BYTES)
    net = _drive(MESSAGES[NetConfig], "NetConfig", net_data[4:])
    node = _drive(MESSAGES[NodeConfig], "NodeConfig", node_data[4:])
    assert _read_three_ways(net) == net_data[4:]
    assert _read_three_ways(node) == node_data[4:]
    assert list(verify_net_config(net, DEFAULT_LIMITS)) == []
    assert list(verify_node_config(node, net, DEFAULT_LIMITS)) == []


@pytest.mark.slow
@given(configs.clusters())
def test_any_valid_cluster_survives(cluster: tuple[Greeting, NetConfig, NodeConfig]) -> None:
    for message in cluster:
        _read_three_ways(message)


@pytest.mark.slow
@given(st.one_of(configs.greetings(), configs.weight_headers(), configs.control_packets()))
def test_any_small_message_survives(message: Any) -> None:
    _read_three_ways(message)


@given(st.binary(max_size=60))
def test_any_text_survives(data: bytes) -> None:
    text = Text(limit="name_length")
    raw = data.replace(b"\0", b"") + b"\0"
    assert text.encode(text.decode(raw)) == raw


@given(st.integers(0, 2**32 - 1))
def test_any_float_bits_survive(bits: int) -> None:
    assert F32.encode(F32.decode(bits)) == bits


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FA00000, 0xFF812345, 0x7FC00000, 0xFFFFFFFF])
def test_nan_bits_survive_also_within_a_message(bits: int) -> None:
    rope = configs.PARAMS[OpCode.ROPE]
    assert isinstance(rope, RopeConfig)
    params = replace(rope, low_freq_factor=F32.decode(bits))
    assert math.isnan(params.low_freq_factor)
    data = build_exactly(OP_CONFIGS[OpCode.ROPE], params, "config")
    assert struct.unpack_from("<I", data, 20) == (bits,)
    again = parse_exactly(OP_CONFIGS[OpCode.ROPE], data, "config")
    assert build_exactly(OP_CONFIGS[OpCode.ROPE], again, "config") == data


def test_a_nan_that_was_never_a_float_stays_a_nan() -> None:
    tiny = struct.unpack("<d", (0x7FF0_0000_0000_0001).to_bytes(8, "little"))[0]
    assert math.isnan(F32.decode(F32.encode(tiny)))


def test_fixed_sizes_are_those_of_the_structs() -> None:
    assert SIZE_3D.fixed_size == 40
    assert POINTER.fixed_size == 12
    assert {
        code.name: schema.fixed_size for code, schema in OP_CONFIGS.items() if schema.fixed_size != 1
    } == {
        "INV_RMS": 8,
        "RMS_NORM": 8,
        "MATMUL": 12,
        "ROPE": 120,
        "MULTIHEAD_ATT": 48,
        "MUL": 4,
        "SCALE": 4,
        "SHIFT": 4,
        "MOE_GATE": 12,
    }


def test_every_op_code_has_a_config() -> None:
    assert set(OP_CONFIGS) == set(OpCode)
    assert {schema.cls for schema in OP_CONFIGS.values()} == set(OpParams.__args__)


def _records(schema: Any) -> Iterator[Record[Any]]:
    schema = bare(schema)
    if isinstance(schema, Record):
        yield schema
        for subcon in schema.subcons:
            yield from _records(subcon)
    for inner in (*getattr(schema, "cases", {}).values(), getattr(schema, "subcon", None)):
        if inner is not None:
            yield from _records(inner)


def test_every_record_of_the_protocol_has_a_schema_with_its_fields_in_order() -> None:
    schemas = {record.cls: record for schema in MESSAGES.values() for record in _records(schema)}
    assert {cls.__name__ for cls in schemas} == set(messages.__all__) - {"OpParams"}
    for cls, schema in schemas.items():
        on_wire = [subcon.name for subcon in schema.subcons if subcon.name in schema.names]
        assert on_wire == [field.name for field in fields(cls)]


def test_the_place_of_a_group_is_that_of_its_first_field() -> None:
    schema = MESSAGES[NodeConfig]
    first_op = offset_of(schema, configs.NODE, "NodeConfig", "NodeConfig.segments[1].ops[0]")
    assert first_op == offset_of(schema, configs.NODE, "NodeConfig", "NodeConfig.segments[1].ops[0].code")
    assert first_op is not None
    weight = offset_of(schema, configs.NODE, "NodeConfig", "NodeConfig.segments[1].ops[0].weight_size")
    assert weight == first_op + 8
    assert offset_of(schema, configs.NODE, "NodeConfig", "NodeConfig.nothing") is None


def _wrong(value: Any) -> Any:
    """Pass a value of a type that does not belong where it is put."""
    return value


@pytest.mark.parametrize(
    ("message", "path", "got"),
    [
        (ControlPacket(2**32, 1), "ControlPacket.position", "4294967296"),
        (ControlPacket(0, -1), "ControlPacket.batch_size", "-1"),
        (WeightHeader("a\0b", 0, 0, 0), "WeightHeader.name", "NUL"),
        (WeightHeader("\ud800", 0, 0, 0), "WeightHeader.name", "surrogates"),
        (WeightHeader("a", 0, 0, 2**64), "WeightHeader.n_bytes", str(2**64)),
        (replace(configs.GREETING, peers=(Peer("a", 1), Peer("b\0", 2))), "Greeting.peers[1].host", "NUL"),
        (
            replace(configs.NET, pipes=(_wrong(configs.NODE),)),
            "NetConfig.pipes[0]",
            "NodeConfig is no PipeConfig",
        ),
        (replace(configs.NET, pipes=_wrong(None)), "NetConfig", "NoneType"),
        (
            replace(configs.NODE, buffers=(*configs.NODE.buffers, _wrong(configs.NET.pipes[0]))),
            "NodeConfig.buffers[2]",
            "PipeConfig is no BufferConfig",
        ),
    ],
)
def test_what_does_not_fit_its_field_cannot_be_built(message: Any, path: str, got: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        build_exactly(MESSAGES[type(message)], message, type(message).__name__)
    assert caught.value.path == path
    assert got in caught.value.got


@pytest.mark.parametrize(
    ("value", "path"),
    [(1e39, "config.epsilon"), ("x", "config")],
)
def test_a_float_that_is_none_cannot_be_built(value: Any, path: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        build_exactly(OP_CONFIGS[OpCode.INV_RMS], messages.InvRmsConfig(value, 1), "config")
    assert caught.value.path == path


@pytest.mark.parametrize("size", [0, 11, 13])
def test_fixed_records_are_parsed_from_exactly_their_bytes(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match="expected 12 bytes"):
        parse_exactly(POINTER, bytes(size), "Pointer")
    assert isinstance(parse_exactly(POINTER, bytes(12), "Pointer"), Pointer)
