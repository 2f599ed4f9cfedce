"""What is wrong with a message is said by field, byte offset, what was expected and what came."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from dllama_proto.connection import Phase, Role
from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, RopeType
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.events import Ack, AckKind, WeightsEnd
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.messages import (
    ControlPacket,
    Greeting,
    NetConfig,
    NodeConfig,
    Peer,
    RopeConfig,
    Size3D,
    WeightHeader,
)
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.node_config import OP
from dllama_proto.schemas.wire import build_exactly
from dllama_proto.verify import verify_node_config
from tests.proto import configs
from tests.proto.configs import CONTROL, GREETING, NET, NODE, WEIGHT
from tests.proto.stages import Pair, put

_PHASE = {
    Greeting: Phase.GREETING,
    NetConfig: Phase.NET_CONFIG,
    NodeConfig: Phase.NODE_CONFIG,
    WeightHeader: Phase.WEIGHTS,
    ControlPacket: Phase.IDLE,
}


def _bytes(message: Any) -> bytes:
    return build_exactly(MESSAGES[type(message)], message, type(message).__name__)


def _error(data: bytes, kind: type) -> RemoteProtocolError:
    """Return what a worker says of these bytes where a message of this kind is due."""
    worker = Pair().advance_to(_PHASE[kind]).worker
    worker.receive_data(data)
    with pytest.raises(RemoteProtocolError) as caught:
        worker.next_event()
    return caught.value


def _op(code: OpCode) -> str:
    return f"segments[1].ops[{code.value}]"


_WEIGHTED = f"segments[1].ops[{len(OpCode)}]"

#: Message, field that is spoilt, its value, what the error says was expected, and came.
_FAULTS: list[tuple[Any, str, Any, str, str]] = [
    (GREETING, "worker_index", 3, "less than 3, the number of workers", "3"),
    (GREETING, "peers[1].port", 0, "1 to 65535", "0"),
    (GREETING, "peers[0].port", -1, "1 to 65535", "-1"),
    (GREETING, "peers[0].port", 65536 + 7, "1 to 65535", "65543"),
    # sizes
    (NET, "n_batches", 0, "1 to 65536", "0"),
    (NET, "n_batches", 65_537, "1 to 65536", "65537"),
    (NET, "n_nodes", 5, "4, as the greeting said", "5"),
    (NET, "pipes[1].size.length", 257, "256, z * y * x", "257"),
    (NET, "pipes[1].size.length", 2**64 - 1, "256, z * y * x", str(2**64 - 1)),
    (NET, "pipes[1].size.n_bytes", 1023, "1024 for F32 [1][4][64]", "1023"),
    (NET, "pipes[1].size.n_bytes_xy", 1, "1024 for F32 [1][4][64]", "1"),
    (NET, "pipes[2].size.x", 255, "whole Q80 blocks of 32 values", "255 values"),
    (NET, "pipes[2].size.z", 0, "1 or more", "0"),
    (NET, "pipes[0].size.float_type", FloatType.UNK, "a type that can be stored", "-1 (UNK)"),
    (NET, "pre_syncs[0].pipe_index", 3, "less than 3, the number of pipes", "3"),
    (NET, "pre_syncs[0].pipe_index", 1, "a pipe for positions, F32 [1][4][1]", "F32 [1][4][64]"),
    (NODE, "buffers[0].size.n_bytes", 0, "1024 for F32 [1][4][64]", "0"),
    (NODE, f"{_WEIGHTED}.weight_size.n_bytes", 1, "6912 for Q40 [2][64][96]", "1"),
    (NODE, f"{_WEIGHTED}.weight_size.n_bytes_xy", 1, "3456 for Q40 [2][64][96]", "1"),
    (NODE, f"{_op(OpCode.CAST)}.weight_size.length", 5, "0, there being no weight", "5"),
    (NODE, f"{_op(OpCode.ROPE)}.config.slice.cache_size.length", 1, "4800, z * y * x", "1"),
    # indexes
    (NODE, "node_index", 4, "less than 4, the number of nodes", "4"),
    (NODE, "node_index", 1, "2, the greeting's worker_index and 1", "1"),
    (NODE, "segments[0].syncs[0].pipe_index", 3, "less than 3, the number of pipes", "3"),
    (
        NODE,
        "segments[1].syncs[0].pipe_index",
        0,
        "rows that 4 nodes can share in whole blocks",
        "F32 [1][4][1]",
    ),
    (NODE, f"{_op(OpCode.SILU)}.input.index", 2, "less than 2, the number of buffers", "2"),
    (NODE, f"{_op(OpCode.SILU)}.output.index", 9, "less than 3, the number of pipes", "9"),
    (NODE, f"{_op(OpCode.RMS_NORM)}.config.inv_rms_buffer", 2, "less than 2, the number of buffers", "2"),
    (NODE, f"{_op(OpCode.ROPE)}.config.position_pipe", 3, "less than 3, the number of pipes", "3"),
    (NODE, f"{_op(OpCode.ROPE)}.config.position_pipe", 1, "a pipe F32 [1][4][1]", "F32 [1][4][64]"),
    (NODE, f"{_op(OpCode.ROPE)}.config.rope_cache_buffer", 2, "less than 2, the number of buffers", "2"),
    (NODE, f"{_op(OpCode.MULTIHEAD_ATT)}.config.position_pipe", 7, "less than 3, the number of pipes", "7"),
    (
        NODE,
        f"{_op(OpCode.MULTIHEAD_ATT)}.config.query_buffer",
        7,
        "less than 2, the number of buffers",
        "7",
    ),
    (
        NODE,
        f"{_op(OpCode.MULTIHEAD_ATT)}.config.key_cache_buffer",
        7,
        "less than 2, the number of buffers",
        "7",
    ),
    (
        NODE,
        f"{_op(OpCode.MULTIHEAD_ATT)}.config.value_cache_buffer",
        7,
        "less than 2, the number of buffers",
        "7",
    ),
    (NODE, f"{_op(OpCode.MULTIHEAD_ATT)}.config.att_buffer", 7, "less than 2, the number of buffers", "7"),
    (
        NODE,
        f"{_op(OpCode.MUL)}.config.multiplier_buffer",
        2**32 - 1,
        "less than 2, the number of buffers",
        str(2**32 - 1),
    ),
    (NODE, f"{_op(OpCode.SCALE)}.config.scale_buffer", 2, "less than 2, the number of buffers", "2"),
    (NODE, f"{_op(OpCode.SHIFT)}.config.index_pipe", 3, "less than 3, the number of pipes", "3"),
    (NODE, f"{_op(OpCode.MOE_GATE)}.config.indexes_buffer", 2, "less than 2, the number of buffers", "2"),
    # pointers
    (NODE, f"{_op(OpCode.GELU)}.input.index", 1, "buffers of 4 rows", "F32 [1][100][16]"),
    (
        NODE,
        f"{_op(OpCode.GELU)}.output.index",
        0,
        "rows that 4 nodes can share in whole blocks",
        "F32 [1][4][1]",
    ),
    # weights and inference
    (WEIGHT, "op_index", 1, "the name and index of an op with a weight", "'weighted' of index 1"),
    (WEIGHT, "offset", 6913, "at most 6912, the size of the weight", "6913"),
    (WEIGHT, "offset", 2**64 - 1, "at most 6912, the size of the weight", str(2**64 - 1)),
    (WEIGHT, "n_bytes", 6895, "at most 6894, what the weight has from byte 18 on", "6895"),
    (WEIGHT, "n_bytes", 2**64 - 1, "at most 6894, what the weight has from byte 18 on", str(2**64 - 1)),
    (CONTROL, "batch_size", 5, "at most 4, NetConfig.n_batches", "5"),
    (CONTROL, "position", 97, "at most 96 for 4 rows and seq_len 100", "97"),
]
#: Where the first thing to be looked at is another field of the message.
_REPORTED = {
    (WeightHeader, "op_index"): "name",
}


@pytest.mark.parametrize(("message", "field", "value", "expected", "got"), _FAULTS)
def test_a_spoilt_field_is_named_with_its_place(
    message: Any, field: str, value: Any, expected: str, got: str
) -> None:
    good, bad = _bytes(message), _bytes(put(message, field, value))
    error = _error(bad, type(message))
    reported = _REPORTED.get((type(message), field), field)
    assert error.path == f"{type(message).__name__}.{reported}"
    assert error.expected == expected
    assert error.got == got
    assert error.offset is not None
    if reported == field:
        first_difference = next(i for i, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b)
        # Offsets are of the field, whose first bytes may be the same in both.
        assert error.offset <= first_difference < error.offset + 8
    assert f"at byte {error.offset}" in str(error)


@pytest.mark.parametrize(("message", "field", "value", "expected", "got"), _FAULTS)
def test_our_own_end_refuses_to_send_it(
    message: Any, field: str, value: Any, expected: str, got: str
) -> None:
    root = Pair().advance_to(_PHASE[type(message)]).root
    with pytest.raises(LocalProtocolError) as caught:
        root.send(put(message, field, value))
    assert (caught.value.expected, caught.value.got, caught.value.offset) == (expected, got, None)
    root.send(message)


# Faults that a record cannot hold, by their bytes ------------------------------------------------------

_FIRST_OP = _bytes(NODE).index(build_exactly(OP, NODE.segments[1].ops[0], "op"))


@pytest.mark.parametrize(
    ("message", "offset", "number", "path", "expected", "got"),
    [
        (GREETING, 0, 0, "Greeting.n_sockets", "1 to 255", "0"),
        (GREETING, 0, 256, "Greeting.n_sockets", "1 to 255", "256"),
        (GREETING, 8, 0, "Greeting.peers[0].host", "a string of 1 to 255 bytes", "0"),
        (GREETING, 8, 2**32 - 1, "Greeting.peers[0].host", "a string of 1 to 255 bytes", str(2**32 - 1)),
        (NET, 8, 257, "NetConfig.n_pipes", "0 to 256", "257"),
        (
            NET,
            12,
            4,
            "NetConfig.pipes[0].size.float_type",
            "one of -1 (UNK), 0 (F32), 1 (F16), 2 (Q40), 3 (Q80)",
            "4",
        ),
        (NET, 12 + 40, 0, "NetConfig.pipes[0].name", "a string of 1 to 255 bytes", "0"),
        (NODE, 4, 4097, "NodeConfig.n_buffers", "0 to 4096", "4097"),
        (NODE, 8, 2**32 - 1, "NodeConfig.n_segments", "0 to 4096", str(2**32 - 1)),
        (NODE, _FIRST_OP, 17, "NodeConfig.segments[1].ops[0].code", "", "17"),
        (NODE, _FIRST_OP, 2**32 - 1, "NodeConfig.segments[1].ops[0].code", "", "-1"),
        (NODE, _FIRST_OP + 8, 77, "NodeConfig.segments[1].ops[0].weight_size.float_type", "", "77"),
        (NODE, _FIRST_OP + 48, 0, "NodeConfig.segments[1].ops[0].config_size", "1 for MERGE_ADD", "0"),
        (NODE, _FIRST_OP + 48, 8, "NodeConfig.segments[1].ops[0].config_size", "1 for MERGE_ADD", "8"),
        (NODE, _FIRST_OP, 6, "NodeConfig.segments[1].ops[0].config_size", "120 for ROPE", "1"),
        (WEIGHT, 0, 256, "WeightHeader.name", "a string of 1 to 255 bytes", "256"),
    ],
)
def test_a_spoilt_number_is_named_with_its_place(
    message: Any, offset: int, number: int, path: str, expected: str, got: str
) -> None:
    data = bytearray(_bytes(message))
    struct.pack_into("<I", data, offset, number)
    error = _error(bytes(data), type(message))
    assert (error.path, error.got) == (path, got)
    # The config size is looked at as soon as it is there, and it is what an exchanged op code contradicts.
    assert error.offset == (_FIRST_OP + 48 if path.endswith("config_size") else offset)
    assert expected in error.expected


@pytest.mark.parametrize(
    ("field", "names"),
    [("input", "source"), ("input", "type"), ("output", "source"), ("output", "type")],
)
def test_unknown_codes_of_pointers(field: str, names: str) -> None:
    name = NODE.segments[1].ops[0].name
    at = _FIRST_OP + 56 + len(name) + 1 + (12 if field == "output" else 0) + (8 if names == "type" else 0)
    data = bytearray(_bytes(NODE))
    struct.pack_into("<i", data, at, 3)
    error = _error(bytes(data), NodeConfig)
    assert error.path == f"NodeConfig.segments[1].ops[0].{field}.{names}"
    assert (error.offset, error.got) == (at, "3")
    enum = PointerSource if names == "source" else PointerType
    assert error.expected == "one of " + ", ".join(f"{member.value} ({member.name})" for member in enum)


@pytest.mark.parametrize(
    ("raw", "expected"), [(b"X!", "a NUL at the end"), (b"\0\0", "no NUL before the end")]
)
def test_names_end_in_their_only_nul(raw: bytes, expected: str) -> None:
    data = _bytes(NET)
    at = data.index(b"X\0")
    error = _error(data[:at] + raw + data[at + 2 :], NetConfig)
    assert (error.path, error.offset, error.expected) == ("NetConfig.pipes[1].name", at, expected)
    assert error.got == repr(raw)


@pytest.mark.parametrize("role", [Role.ROOT, Role.WORKER])
def test_a_wrong_ack(role: Role) -> None:
    pair = Pair().advance_to(Phase.GREETING_ACK if role is Role.ROOT else Phase.ROOT_READY)
    end = pair.ends[role]
    end.receive_data(b"HTTP/1.1 200 OK")
    with pytest.raises(RemoteProtocolError) as caught:
        end.next_event()
    kind = "GREETING" if role is Role.ROOT else "ROOT_READY"
    assert str(caught.value) == (
        f"Ack({kind}) at byte 0: expected 23571114 (aa aa 67 01), got 1347703880 (48 54 54 50)"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_strangers_are_told_from_a_root_by_their_first_bytes(data: bytes) -> None:
    error = _error(data, Greeting)
    assert (error.path, error.offset) == ("Greeting.n_sockets", 0)
    assert error.got == str(int.from_bytes(data[:4], "little"))


def test_two_weights_of_one_name_and_index() -> None:
    path = f"segments[1].ops[{OpCode.RMS_NORM.value}]"
    node = put(NODE, f"{path}.weight_size", Size3D.of(FloatType.F32, x=64))
    node = put(node, f"{path}.name", "weighted")
    error = _error(_bytes(node), NodeConfig)
    assert error.path == f"NodeConfig.{_WEIGHTED}.name"
    assert error.got == f"'weighted' of index 0, as in NodeConfig.{path}"


def test_ops_without_a_weight_may_share_name_and_index() -> None:
    node = put(NODE, f"{_op(OpCode.CAST)}.name", "weighted")
    worker = Pair().advance_to(Phase.NODE_CONFIG).worker
    worker.receive_data(_bytes(node))
    assert worker.next_event() == node


def test_a_weight_of_broken_blocks() -> None:
    node = put(NODE, f"{_WEIGHTED}.weight_size.y", 33)
    node = put(node, f"{_WEIGHTED}.weight_size.x", 33)
    error = _error(_bytes(node), NodeConfig)
    assert error.path == f"NodeConfig.{_WEIGHTED}.weight_size.y"
    assert (error.expected, error.got) == ("whole Q40 blocks of 32 values", "1089 values")


def test_a_synced_pipe_needs_a_row_for_each_batch() -> None:
    net = put(NET, "pipes[1].size", Size3D.of(FloatType.F32, y=3, x=64))
    fault = next(verify_node_config(NODE, net, DEFAULT_LIMITS))
    assert fault.path == "NodeConfig.segments[0].syncs[0].pipe_index"
    assert (fault.expected, fault.got) == ("a pipe [1][4][x]", "F32 [1][3][64]")


def test_uninitialised_fields_are_never_looked_at() -> None:
    rope = configs.PARAMS[OpCode.ROPE]
    assert isinstance(rope, RopeConfig)
    falcon = put(rope, "type", RopeType.FALCON)
    for name in ("q_dim_start", "q_dim_end", "q_shift", "kv_dim_start", "slice_dim"):
        falcon = put(falcon, f"slice.{name}", 0xDEADBEEF)
    node = put(NODE, f"{_op(OpCode.ROPE)}.config", falcon)
    node = put(node, f"{_op(OpCode.MATMUL)}.config.active_expert_indexes_buffer", 0xDEADBEEF)
    worker = Pair().advance_to(Phase.NODE_CONFIG).worker
    worker.receive_data(_bytes(node))
    assert worker.next_event() == node


def test_a_matmul_with_active_experts_needs_its_index_buffer() -> None:
    """Whatever it says of experts in all: those of the rows are looked up where some are active."""
    config = f"{_op(OpCode.MATMUL)}.config"
    for n_experts in (0, 2):
        node = put(put(NODE, f"{config}.n_experts", n_experts), f"{config}.n_active_experts", 2)
        error = _error(_bytes(node), NodeConfig)
        assert error.path == f"NodeConfig.{config}.active_expert_indexes_buffer"


def test_a_matmul_without_active_experts_does_not_look_at_its_index_buffer() -> None:
    node = put(NODE, f"{_op(OpCode.MATMUL)}.config.n_experts", 2)
    worker = Pair().advance_to(Phase.NODE_CONFIG).worker
    worker.receive_data(_bytes(node))
    assert worker.next_event() == node


def test_a_stop_packet_may_have_any_position() -> None:
    stop = ControlPacket(2**32 - 1, 0)
    pair = Pair().advance_to(Phase.IDLE)
    assert pair.say(Role.ROOT, stop) == stop
    assert pair.worker.phase is Phase.CLOSED


def test_the_greeting_must_have_as_many_peers_as_it_says() -> None:
    root = Pair().root
    with pytest.raises(LocalProtocolError) as caught:
        root.send(Greeting(3, 0, (Peer("a", 1),)))
    assert caught.value.path == "Greeting.peers"
    with pytest.raises(LocalProtocolError, match="a host name or address"):
        root.send(Greeting(2, 0, (Peer("", 1),)))


def test_positions_are_bound_only_by_ops_that_say_how_many_there_are() -> None:
    pair = Pair().advance_to(Phase.NODE_CONFIG)
    for role, event in (
        (Role.ROOT, put(NODE, "segments[1].ops", ())),
        (Role.WORKER, Ack(AckKind.NODE_CONFIG)),
        (Role.ROOT, WeightsEnd()),
        (Role.WORKER, Ack(AckKind.WEIGHTS)),
        (Role.ROOT, ControlPacket(2**32 - 1, 4)),
    ):
        assert pair.say(role, event) == event
