"""From configs to contexts: what the wire says of an op is what its kernel is given."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from dllama_ops import build_kernel_table, make_plugin_manager
from dllama_ops.kernel import OpContext
from dllama_ops.reference.specs import OPS
from dllama_ops.table import KernelTable
from dllama_ops.tensor import Tensor
from dllama_ops.testing import golden_case, golden_names
from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.messages import (
    BufferConfig,
    MatmulConfig,
    MulConfig,
    NetConfig,
    NodeConfig,
    OpConfig,
    PipeConfig,
    Pointer,
    SegmentConfig,
    Size3D,
)
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas._incremental import read_message
from dllama_proto.schemas.op_configs import OPS as WIRE_OPS
from dllama_proto.verify import verify_node_config
from dllama_worker.errors import ConfigRejected, InternalError
from dllama_worker.node.binding import bind
from dllama_worker.node.memory import NodeMemory
from dllama_worker.node.node import Node
from dllama_worker.report import Report
from tests.helpers.new_op import PICK, PickConfig, PickParams, registered

_VECTORS = files("dllama_ops.testing") / "vectors"
_ACK_SIZE = 4
_F32 = FloatType.F32


def _table(kernels: str = "numpy") -> KernelTable:
    return build_kernel_table(make_plugin_manager(), prefer=kernels)


# Recordings -------------------------------------------------------------------------------------------


def _parsed(kind: Any, data: bytes) -> Any:
    """Return the message that follows an ack, read to its last byte."""
    reader, view, at = (
        read_message(MESSAGES[kind], kind.__name__, DEFAULT_LIMITS),
        memoryview(data),
        _ACK_SIZE,
    )
    piece = next(reader)
    while True:
        part, at = view[at : at + piece.size], at + piece.size
        try:
            piece = reader.send(part)
        except StopIteration as end:
            assert at == len(data)
            return end.value


def _told(params: Any, names: dict[int, str]) -> dict[str, Any]:
    """Return params with the names of memories, by address, in place of tensors."""
    values = {field.name: getattr(params, field.name) for field in fields(params)}
    return {
        name: names[value.data.ctypes.data] if isinstance(value, Tensor) else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("name", golden_names())
def test_a_recorded_config_gives_the_params_that_the_kit_has(name: str) -> None:
    with (_VECTORS / f"{name}.npz").open("rb") as file, np.load(file) as arrays:
        net = _parsed(NetConfig, arrays["net_config"].tobytes())
        node = _parsed(NodeConfig, arrays["node_config"].tobytes())
    memory = NodeMemory(net, node)
    [[op]] = bind(net, node, memory, _table(), 1).segments
    case = golden_case(name).bind()
    ours = {t.data.ctypes.data: f"pipe {p.name}" for t, p in zip(memory.pipes, net.pipes, strict=True)}
    ours |= {
        t.data.ctypes.data: f"buffer {b.name}" for t, b in zip(memory.buffers, node.buffers, strict=True)
    }
    theirs = {arena.tensor.data.ctypes.data: each for each, arena in case.arenas.items()}
    assert type(op.context.params) is type(case.context.params)
    assert _told(op.context.params, ours) == _told(case.context.params, theirs)
    assert op.context.key == case.context.key


def test_there_is_a_recording_of_every_record_of_params() -> None:
    """Or the test above would not look at all of them, MUL and SCALE and the other small ones included."""
    assert {golden_case(name).key.code for name in golden_names()} == set(OpCode)


# A new op ---------------------------------------------------------------------------------------------

_ROWS = 3
_NET = NetConfig(
    n_batches=_ROWS,
    n_nodes=1,
    pipes=(
        PipeConfig(Size3D.of(_F32, y=_ROWS, x=4), "X"),
        PipeConfig(Size3D.of(_F32, y=_ROWS, x=1), "OUT"),
    ),
    pre_syncs=(),
)
_OP = OpConfig(
    PICK,
    0,
    Size3D.none(),
    "block_pick",
    Pointer(PointerSource.PIPE, 0, PointerType.BATCH),
    Pointer(PointerSource.PIPE, 1, PointerType.BATCH),
    PickConfig(2.0, 0, 0xDEADBEEF),
)


def _node(*ops: OpConfig, width: int = 1) -> NodeConfig:
    buffer = BufferConfig(Size3D.of(_F32, y=_ROWS, x=width), "chosen")
    return NodeConfig(0, (buffer,), (SegmentConfig((), ops),))


def _context(node: NodeConfig) -> OpContext:
    [[op]] = bind(_NET, node, NodeMemory(_NET, node), _table(), 1).segments
    return op.context


@pytest.mark.parametrize("kernels", ["numpy", ""])
def test_a_segment_with_it_runs(kernels: str) -> None:
    """Among kernels of others, too: those of C++ where there are any."""
    with registered():
        config = _node(_OP, replace(_OP, code=OpCode.SILU, input=_OP.output, config=_padding()))
        assert list(verify_node_config(config, _NET, DEFAULT_LIMITS)) == []
        node = Node(_NET, config, {}, _table(kernels), 1)
        node.ready(Report())
        assert node.executor is not None
        node.memory.pipes[0].data[0] = np.arange(12, dtype=np.float32).reshape(3, 4)
        node.memory.buffers[0].data[0, :, 0] = (3, 0, 1)
        node.executor.forward(2)
    values = np.array([6.0, 8.0, 0.0], np.float32)
    expected = values / (1 + np.exp(-values))
    np.testing.assert_allclose(node.memory.pipes[1].data[0, :, 0], expected, atol=5e-5)


def _padding() -> Any:
    return WIRE_OPS.get(OpCode.SILU).config()


def test_what_means_nothing_is_no_tensor() -> None:
    with registered():
        params = _context(_node(replace(_OP, config=PickConfig(0.0, 77, 0)))).params
    assert isinstance(params, PickParams)
    assert params.indexes is None


def test_the_contract_of_the_new_op_counts() -> None:
    with (
        registered(),
        pytest.raises(ConfigRejected, match=r"PICK 'block_pick' of layer 0: indexes: expected"),
    ):
        _context(_node(_OP, width=2))


def test_an_op_that_no_kernels_are_known_for_is_refused() -> None:
    with registered():
        spec = OPS.get(PICK)
        OPS.remove(PICK)
        try:
            with pytest.raises(ConfigRejected, match="PICK 'block_pick' of layer 0: expected an op"):
                _context(_node(_OP))
        finally:
            OPS.register(spec)


def test_specs_that_disagree_are_a_bug() -> None:
    @dataclass(frozen=True)
    class More(PickParams):
        more: int

    with registered():
        spec = OPS.get(PICK)
        OPS.remove(PICK)
        OPS.register(replace(spec, params=More))
        with pytest.raises(InternalError, match="More needs more, which PickConfig does not have"):
            _context(_node(_OP))


# What there was before --------------------------------------------------------------------------------


def test_active_experts_need_their_indexes_whatever_is_said_of_experts() -> None:
    """A buffer that isn't there is a fault of the message, not an error in the middle of binding."""
    size = Size3D.of(_F32, y=4, x=1)
    matmul = replace(_OP, code=OpCode.MATMUL, weight_size=size, config=MatmulConfig(0, 1, 9))
    [fault] = verify_node_config(_node(matmul), _NET, DEFAULT_LIMITS)
    assert fault.path == "NodeConfig.segments[0].ops[0].config.active_expert_indexes_buffer"


def test_a_tensor_among_the_params_is_the_whole_buffer() -> None:
    mul = replace(_OP, code=OpCode.MUL, input=_OP.output, config=MulConfig(0))
    memory = NodeMemory(_NET, _node(mul))
    [[op]] = bind(_NET, _node(mul), memory, _table(), 1).segments
    params: Any = op.context.params
    assert params.multiplier is memory.buffers[0]
