"""From configuration to kernels: every op of a node is resolved, verified and given its kernel, once.

This is the only place that sees both a wire record and a kernel. Nothing is half-bound: all faults of a
configuration are collected and reported together, before any weight is received.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dllama_ops import params
from dllama_ops.contract import check_context
from dllama_ops.errors import KernelNotFound
from dllama_ops.kernel import BoundOp, KernelFactory, KernelKey, OpContext
from dllama_ops.table import KernelTable
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto import messages
from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, RopeType, op_quant_type
from dllama_proto.messages import NetConfig, NodeConfig, OpConfig, Pointer, Size3D
from dllama_worker.errors import ConfigRejected, MachineError, NodeError
from dllama_worker.node.memory import NodeMemory

__all__ = ["BoundNode", "bind"]


@dataclass(frozen=True, slots=True, eq=False)
class BoundNode:
    """A node that is ready for weights: its ops by segment, and those with a weight by (name, layer)."""

    segments: tuple[tuple[BoundOp, ...], ...]
    weighted: Mapping[tuple[str, int], BoundOp]


def bind(
    net: NetConfig, node: NodeConfig, memory: NodeMemory, table: KernelTable, n_threads: int
) -> BoundNode:
    """Resolve and verify every op, then make its kernel.

    The configs have passed the protocol's own checks (indexes, pointers, sizes). Raises ConfigRejected with
    every fault found, MachineError where a kernel cannot get its memory.
    """
    faults: list[str] = []
    planned = [
        [_plan(net, node, op, memory, table, n_threads, faults) for op in segment.ops]
        for segment in node.segments
    ]
    if faults:
        raise ConfigRejected(faults)
    segments = tuple(tuple(_make(*plan) for plan in segment if plan is not None) for segment in planned)
    weighted = {
        (op.context.name, op.context.index): op
        for segment in segments
        for op in segment
        if op.context.weight is not None
    }
    return BoundNode(segments, MappingProxyType(weighted))


def _plan(
    net: NetConfig,
    node: NodeConfig,
    op: OpConfig,
    memory: NodeMemory,
    table: KernelTable,
    n_threads: int,
    faults: list[str],
) -> tuple[OpContext, KernelFactory] | None:
    """Return what the op's kernel will be made of, or None with the reasons added to ``faults``."""
    where = f"{op.code.name} {op.name!r} of layer {op.index}"
    source, target = _resolve(net, node, op.input, memory), _resolve(net, node, op.output, memory)
    quant = op_quant_type(source.float_type, op.weight_size.float_type, target.float_type)
    if quant is None:
        types = (source.float_type, op.weight_size.float_type, target.float_type)
        faults.append(
            f"{where}: expected float types with a kernel, got " + "/".join(t.name for t in types)
        )
        return None
    context = OpContext(
        key=KernelKey(op.code, quant),
        name=op.name,
        index=op.index,
        n_batches=net.n_batches,
        n_threads=n_threads,
        input=source,
        output=target,
        weight=_weight_spec(op.weight_size),
        params=_PARAMS[op.code](op.config, memory),
    )
    found = check_context(context)
    faults.extend(f"{where}: {fault}" for fault in found)
    try:
        factory = table.get(context.key).factory
    except KernelNotFound as error:
        faults.append(f"{where}: {error}")
        return None
    return None if found else (context, factory)


def _make(context: OpContext, factory: KernelFactory) -> BoundOp:
    try:
        return BoundOp(context, factory(context))
    except NodeError:
        raise
    except MemoryError as error:
        size = context.weight.n_bytes if context.weight else 0
        raise MachineError(
            f"no memory for {context.key} {context.name!r} of layer {context.index} ({size:,} bytes of weight)"
        ) from error


def _resolve(net: NetConfig, node: NodeConfig, pointer: Pointer, memory: NodeMemory) -> Tensor:
    """Return what an op sees through a pointer (C++ ``NnCpuDevice::resolvePointer``)."""
    tensors = memory.pipes if pointer.source is PointerSource.PIPE else memory.buffers
    tensor = tensors[pointer.index]
    if pointer.type is PointerType.RAW:
        return tensor.raw()
    if pointer.type is PointerType.BATCHED_SLICE:
        width = tensor.x // net.n_nodes
        return tensor.columns(width * node.node_index, width * (node.node_index + 1))
    return tensor


def _weight_spec(size: Size3D) -> WeightSpec | None:
    if size.float_type is FloatType.UNK:
        return None
    return WeightSpec(size.float_type, z=size.z, y=size.y, x=size.x)


# One function an op code: the wire's config, with indexes, becomes the kernel's params, with tensors. ------


def _none(config: messages.EmptyConfig, memory: NodeMemory) -> params.NoParams:
    return params.NoParams()


def _inv_rms(config: messages.InvRmsConfig, memory: NodeMemory) -> params.InvRmsParams:
    return params.InvRmsParams(epsilon=config.epsilon, n_columns=config.n_columns)


def _rms_norm(config: messages.RmsNormConfig, memory: NodeMemory) -> params.RmsNormParams:
    return params.RmsNormParams(n_columns=config.n_columns, inv_rms=memory.buffers[config.inv_rms_buffer])


def _matmul(config: messages.MatmulConfig, memory: NodeMemory) -> params.MatmulParams:
    has_experts = config.n_active_experts > 0
    return params.MatmulParams(
        n_experts=config.n_experts,
        n_active_experts=config.n_active_experts,
        active_expert_indexes=memory.buffers[config.active_expert_indexes_buffer] if has_experts else None,
    )


def _rope(config: messages.RopeConfig, memory: NodeMemory) -> params.RopeParams:
    part = config.slice
    # The root leaves these fields uninitialised with FALCON, which needs none of them.
    falcon = config.type is RopeType.FALCON
    return params.RopeParams(
        type=config.type,
        is_q=config.is_q == 1,
        positions=memory.pipes[config.position_pipe],
        cache=memory.buffers[config.rope_cache_buffer],
        scaling_factor=config.scaling_factor,
        low_freq_factor=config.low_freq_factor,
        high_freq_factor=config.high_freq_factor,
        orig_max_seq_len=config.orig_max_seq_len,
        q_dim0=part.q_dim0,
        kv_dim0=part.kv_dim0,
        kv_dim_start=0 if falcon else part.kv_dim_start,
        q_dim_end=0 if falcon else part.q_dim_end,
        q_shift=0 if falcon else part.q_shift,
        slice_dim=0 if falcon else part.slice_dim,
        seq_len=part.seq_len,
        head_dim=part.head_dim,
        rope_theta=part.rope_theta,
    )


def _multihead_att(config: messages.MultiHeadAttConfig, memory: NodeMemory) -> params.MultiHeadAttParams:
    return params.MultiHeadAttParams(
        n_heads=config.n_heads,
        n_heads0=config.n_heads0,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        seq_len=config.seq_len,
        kv_dim0=config.kv_dim0,
        positions=memory.pipes[config.position_pipe],
        query=memory.buffers[config.query_buffer],
        key_cache=memory.buffers[config.key_cache_buffer],
        value_cache=memory.buffers[config.value_cache_buffer],
        att=memory.buffers[config.att_buffer],
    )


def _mul(config: messages.MulConfig, memory: NodeMemory) -> params.MulParams:
    return params.MulParams(multiplier=memory.buffers[config.multiplier_buffer])


def _scale(config: messages.ScaleConfig, memory: NodeMemory) -> params.ScaleParams:
    return params.ScaleParams(scale=memory.buffers[config.scale_buffer])


def _shift(config: messages.ShiftConfig, memory: NodeMemory) -> params.ShiftParams:
    return params.ShiftParams(indexes=memory.pipes[config.index_pipe])


def _moe_gate(config: messages.MoeGateConfig, memory: NodeMemory) -> params.MoeGateParams:
    return params.MoeGateParams(
        k=config.k, norm_topk=config.norm_topk == 1, indexes=memory.buffers[config.indexes_buffer]
    )


# Any: each function takes its own config record; the parser has paired op codes with the right one.
_PARAMS: Mapping[OpCode, Callable[[Any, NodeMemory], params.OpParams]] = MappingProxyType(
    {
        OpCode.MERGE_ADD: _none,
        OpCode.MERGE_SUM: _none,
        OpCode.EMBEDDING: _none,
        OpCode.INV_RMS: _inv_rms,
        OpCode.RMS_NORM: _rms_norm,
        OpCode.MATMUL: _matmul,
        OpCode.ROPE: _rope,
        OpCode.MULTIHEAD_ATT: _multihead_att,
        OpCode.GELU: _none,
        OpCode.SILU: _none,
        OpCode.MUL: _mul,
        OpCode.SCALE: _scale,
        OpCode.CAST: _none,
        OpCode.REPEAT_Z: _none,
        OpCode.SHIFT: _shift,
        OpCode.SOFTMAX: _none,
        OpCode.MOE_GATE: _moe_gate,
    }
)
