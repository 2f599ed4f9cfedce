"""From configs to contexts: what the wire says of an op is what its kernel is given."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from dllama_ops import build_kernel_table, make_plugin_manager
from dllama_ops.kernel import BaseKernel, Kernel, KernelFactory, OpContext
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
from dllama_proto.schemas.incremental import read_message
from dllama_proto.schemas.op_configs import OPS as WIRE_OPS
from dllama_proto.verify import verify_node_config
from dllama_worker.errors import ConfigRejected, InternalError, MachineError
from dllama_worker.node.binding import BoundNode, bind
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


# Faults ----------------------------------------------------------------------------------------------

_OUT = _OP.output


def _silu(name: str, **changes: Any) -> OpConfig:
    """An op that can be bound, unless a change says otherwise."""
    return replace(
        _OP, **{"code": OpCode.SILU, "name": name, "input": _OUT, "config": _padding()} | changes
    )


def _matmul(name: str) -> OpConfig:
    return replace(
        _OP,
        code=OpCode.MATMUL,
        name=name,
        weight_size=Size3D.of(_F32, y=4, x=1),
        config=MatmulConfig(0, 0, 0),
    )


def _bind(*segments: tuple[OpConfig, ...], table: KernelTable | None = None) -> BoundNode:
    node = NodeConfig(0, (), tuple(SegmentConfig((), ops) for ops in segments))
    return bind(_NET, node, NodeMemory(_NET, node), table or _table(), 1)


def _with_factory(code: OpCode, factory: KernelFactory) -> KernelTable:
    """The usual table, but for the kernels of one op."""
    table = _table()
    choices = {
        key: replace(choice, entry=replace(choice.entry, factory=factory)) if key.code is code else choice
        for key, choice in table.choices.items()
    }
    return replace(table, choices=choices)


def test_all_faults_of_a_config_are_told_together() -> None:
    with pytest.raises(ConfigRejected) as caught:
        _bind(
            (_silu("good"), _silu("first", output=_OP.input)),
            (_silu("second", index=7, weight_size=Size3D.of(FloatType.Q40, y=32, x=1)), _silu("good")),
            (_silu("third", output=_OP.input),),
        )
    faults = caught.value.faults
    assert list(dict.fromkeys(fault.partition(": ")[0] for fault in faults)) == [
        "SILU 'first' of layer 0", "SILU 'second' of layer 7", "SILU 'third' of layer 0"
    ]  # fmt: skip
    assert str(caught.value) == f"the root's configuration has 6 faults: {'; '.join(faults)}; and 1 more"
    assert (len(faults), caught.value.n_faults) == (5, 6)


def test_nothing_is_made_where_anything_is_wrong() -> None:
    class Idle(BaseKernel):
        def forward(self, batch_size: int) -> None:
            raise NotImplementedError

    made: list[str] = []

    def factory(context: OpContext) -> Kernel:
        made.append(context.name)
        return Idle(context)

    table = _with_factory(OpCode.SILU, factory)
    with pytest.raises(ConfigRejected):
        _bind((_silu("good"), _silu("bad", output=_OP.input)), table=table)
    assert made == []
    _bind((_silu("good"), _silu("better")), table=table)
    assert made == ["good", "better"]


def test_an_op_without_a_kernel_is_a_fault_of_its_own() -> None:
    with pytest.raises(ConfigRejected) as caught:
        _bind((_silu("one"),), (_silu("other"),), table=replace(_table(), choices={}))
    one, other = caught.value.faults
    assert one.startswith("SILU 'one' of layer 0: expected a kernel for SILU")
    assert other.startswith("SILU 'other' of layer 0: expected a kernel for SILU")


def test_a_kernel_that_gets_no_memory_is_the_machines_fault() -> None:
    def factory(context: OpContext) -> Kernel:
        raise MemoryError

    with pytest.raises(MachineError, match=r"no memory for MATMUL.* 'q' of layer 0 \(16 bytes of weight\)"):
        _bind((_matmul("q"),), table=_with_factory(OpCode.MATMUL, factory))


def test_what_a_kernel_raises_on_purpose_stays_as_it_is() -> None:
    error = MachineError("only 3 threads left")

    def factory(context: OpContext) -> Kernel:
        raise error

    with pytest.raises(MachineError) as caught:
        _bind((_silu("one"),), table=_with_factory(OpCode.SILU, factory))
    assert caught.value is error


# What is bound ---------------------------------------------------------------------------------------


def test_ops_are_found_by_segment_and_those_with_a_weight_by_name() -> None:
    bound = _bind((_matmul("q"), _silu("act")), (), (replace(_matmul("q"), index=1),))
    assert [[op.context.name for op in segment] for segment in bound.segments] == [["q", "act"], [], ["q"]]
    assert dict(bound.weighted) == {("q", 0): bound.segments[0][0], ("q", 1): bound.segments[2][0]}
    weight = bound.weighted["q", 1].context.weight
    assert weight is not None
    assert (weight.float_type, weight.y, weight.x) == (_F32, 4, 1)


def test_a_pointer_to_a_slice_is_the_nodes_own_columns() -> None:
    net = replace(_NET, n_nodes=2)
    op = _silu(
        "own",
        code=OpCode.CAST,
        input=Pointer(PointerSource.PIPE, 0, PointerType.BATCHED_SLICE),
        output=Pointer(PointerSource.BUFFER, 0, PointerType.BATCH),
    )
    node = replace(_node(op, width=2), node_index=1)
    memory = NodeMemory(net, node)
    [[bound]] = bind(net, node, memory, _table(), 1).segments
    memory.pipes[0].data[:] = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert bound.context.input.data[0].tolist() == [[2, 3], [6, 7], [10, 11]]
    assert bound.context.output is memory.buffers[0]


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
