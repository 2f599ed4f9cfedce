"""From configuration to kernels: every op of a node is resolved, verified and given its kernel, once.

This is the only place that sees both a wire record and a kernel. Nothing is half-bound: all faults of a
configuration are counted, and the first few reported together, before any weight is received.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, get_type_hints

from dllama_ops.blame import Blame
from dllama_ops.contract import check_context
from dllama_ops.errors import KernelNotFound
from dllama_ops.kernel import BoundOp, KernelKey, OpContext
from dllama_ops.reference.specs import OPS
from dllama_ops.scope import NodeScope
from dllama_ops.table import KernelEntry, KernelTable
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.bounded_text import FirstFew, quoted
from dllama_proto.enums import FloatType, PointerSource, PointerType, op_quant_type
from dllama_proto.messages import NetConfig, NodeConfig, OpConfig, Pointer, Size3D
from dllama_proto.schemas.op_configs import OPS as WIRE_OPS
from dllama_proto.schemas.op_spec import OpConfigSpec
from dllama_worker.errors import ConfigRejected, InternalError, MachineError
from dllama_worker.node.kernel_memory import KernelMemory, kernel_memory
from dllama_worker.node.memory import NodeMemory
from dllama_worker.node.preparation import Check, checked, unhurried

__all__ = ["BoundNode", "PlannedNode", "bind", "plan_node"]


@dataclass(frozen=True, slots=True, eq=False)
class BoundNode:
    """A node that is ready for weights: its ops by segment, and those with a weight by (name, layer)."""

    segments: tuple[tuple[BoundOp, ...], ...]
    weighted: Mapping[tuple[str, int], BoundOp]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedNode:
    """A node whose ops are verified and resolved; no kernel is made yet."""

    segments: tuple[tuple[tuple[OpContext, KernelEntry], ...], ...]
    scope: NodeScope
    check: Check

    def kernel_memory(self) -> KernelMemory:
        """Add up what the kernels will take."""
        return kernel_memory(op for segment in self.segments for op in checked(segment, self.check))

    def make_kernels(self) -> BoundNode:
        """Make every op's kernel, then do what they have to do once for all of them.

        Raises MachineError where one cannot get its memory.
        """
        segments = tuple(
            tuple(_make(*op) for op in checked(segment, self.check)) for segment in self.segments
        )
        for _ in self.scope.shared_work():
            self.check()
        weighted = {
            (op.context.name, op.context.index): op
            for segment in segments
            for op in segment
            if op.context.weight is not None
        }
        return BoundNode(segments, MappingProxyType(weighted))


def plan_node(
    net: NetConfig,
    node: NodeConfig,
    memory: NodeMemory,
    table: KernelTable,
    n_threads: int,
    check: Check = unhurried,
) -> PlannedNode:
    """Resolve and verify every op; ``check`` is called between two of them, here and in what follows.

    The configs have passed the protocol's own checks (indexes, pointers, sizes). Raises ConfigRejected with
    the first faults, and how many there are.
    """
    faults = FirstFew()
    scope = NodeScope()
    segments: list[list[tuple[OpContext, KernelEntry]]] = []
    for segment in node.segments:
        segments.append([])
        for op in checked(segment.ops, check):
            planned = _plan(net, node, op, memory, table, n_threads, scope, faults)
            if planned is None:
                segments.clear()  # what comes is only counted: a refused config takes little memory
                segments.append([])
            elif not len(faults):
                segments[-1].append(planned)
    if len(faults):
        raise ConfigRejected(faults)
    return PlannedNode(tuple(map(tuple, segments)), scope, check)


def bind(
    net: NetConfig, node: NodeConfig, memory: NodeMemory, table: KernelTable, n_threads: int
) -> BoundNode:
    """Resolve and verify every op, then make its kernel, whatever memory it takes.

    Raises what :func:`plan_node` does, and MachineError where a kernel cannot get its memory.
    """
    return plan_node(net, node, memory, table, n_threads).make_kernels()


def _plan(
    net: NetConfig,
    node: NodeConfig,
    op: OpConfig,
    memory: NodeMemory,
    table: KernelTable,
    n_threads: int,
    scope: NodeScope,
    faults: FirstFew,
) -> tuple[OpContext, KernelEntry] | None:
    """Return what the op's kernel will be made of, or None with the reasons added to ``faults``."""
    where = f"{op.code.name} {quoted(op.name)} of layer {op.index}"
    if op.code not in OPS:
        faults.add(f"{where}: expected an op that kernels are known for")
        return None
    source, target = _resolve(net, node, op.input, memory), _resolve(net, node, op.output, memory)
    quant = op_quant_type(source.float_type, op.weight_size.float_type, target.float_type)
    if quant is None:
        types = (source.float_type, op.weight_size.float_type, target.float_type)
        faults.add(f"{where}: expected float types with a kernel, got " + "/".join(t.name for t in types))
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
        params=_params(op, WIRE_OPS.get(op.code), OPS.get(op.code).params, memory),
        scope=scope,
    )
    found = check_context(context)
    for fault in found:
        faults.add(f"{where}: {fault}")
    try:
        entry = table.get(context.key)
    except KernelNotFound as error:
        faults.add(f"{where}: {error}")
        return None
    return None if found else (context, entry)


def _make(context: OpContext, entry: KernelEntry) -> BoundOp:
    try:
        with Blame(entry.plugin, f"make the kernel of {context.where}"):
            return BoundOp(context, entry.factory(context), entry.plugin)
    except MemoryError as error:
        size = context.weight.n_bytes if context.weight else 0
        raise MachineError(f"no memory for {context.where} ({size:,} bytes of weight)") from error


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


# The wire's config, with indexes, becomes the kernel's params, with tensors. --------------------------------

#: Params are named as the wire's fields, without the ``_buffer`` or ``_pipe`` of an index; but for these.
_RENAMED = MappingProxyType(
    {"position_pipe": "positions", "index_pipe": "indexes", "rope_cache_buffer": "cache"}
)


def _params(op: OpConfig, spec: OpConfigSpec[Any], record: Callable[..., Any], memory: NodeMemory) -> Any:
    """Return the op's params: what means nothing on the wire is 0, or no tensor.

    Raises InternalError where the config lacks a field of the params: the op's two specs disagree.
    """
    values = _values(spec.defined(op.config))
    for name, _ in spec.schema.indexes:
        values[_param_name(name)] = None
    for name, source, number in spec.indexes(op.config):
        holders = memory.pipes if source is PointerSource.PIPE else memory.buffers
        values[_param_name(name)] = holders[number]
    hints = _hints(record)
    missing = [name for name in hints if name not in values]
    if missing:
        raise InternalError(
            f"{record.__name__} needs {missing[0]}, which {spec.config.__name__} does not have"
        )
    return record(
        **{name: values[name] == 1 if kind is bool else values[name] for name, kind in hints.items()}
    )


def _param_name(field: str) -> str:
    return _RENAMED.get(field) or field.removesuffix("_buffer").removesuffix("_pipe")


def _values(config: Any) -> dict[str, Any]:
    """Return the fields of a config by name, and those of records within it."""
    own = {field.name: getattr(config, field.name) for field in fields(config)}
    inner = [_values(value) for value in own.values() if is_dataclass(value)]
    return {name: value for part in (*inner, own) for name, value in part.items()}


@cache
def _hints(record: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the types of a record's fields, by name."""
    return MappingProxyType(get_type_hints(record))
