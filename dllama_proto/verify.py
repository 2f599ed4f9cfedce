"""Whether a message makes sense: sizes add up, indexes exist, pointers and configs fit.

Pure functions over records. Each yields :class:`Fault` after fault, first to last in the message, and so
serves whoever receives a message (who stops at the first), sends one, or wants to see them all. Whether the
shapes of an op's input, weight and output fit each other is the kernels' to say, not asked here.

Fields that mean nothing, as the specs of ops say, are never looked at. Sources: ``nn-core.cpp``
(``size3D``, ``getBytes``), ``nn-cpu.cpp`` (``resolvePointer``, ``loadWeight``), ``nn-executor.cpp``
(``setBatchSize``, ``loadWeight``), ``app.cpp`` (the position pipe).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dllama_proto.bounded_text import quoted
from dllama_proto.enums import FloatType, PointerSource, PointerType, SyncType
from dllama_proto.fault import Fault
from dllama_proto.floats import BLOCK_SIZE, is_whole_blocks, n_bytes
from dllama_proto.formatting import counted
from dllama_proto.limits import Limits
from dllama_proto.messages import (
    ControlPacket,
    Greeting,
    NetConfig,
    NodeConfig,
    OpConfig,
    Pointer,
    Size3D,
    SyncConfig,
    WeightHeader,
)

if TYPE_CHECKING:
    from dllama_proto.schemas.op_spec import OpConfigSpec

__all__ = [
    "Fault",
    "WeightKey",
    "verify_control_packet",
    "verify_greeting",
    "verify_net_config",
    "verify_node_config",
    "verify_weight_header",
]

#: What addresses a weight: the name and index of its op.
WeightKey = tuple[str, int]


# Joining --------------------------------------------------------------------------------------------


def verify_greeting(greeting: Greeting) -> Iterator[Fault]:
    """Check that the counts agree and every other worker can be dialled."""
    n_peers = greeting.n_sockets - 1
    if len(greeting.peers) != n_peers:
        yield Fault("Greeting.peers", f"{n_peers} of them", str(len(greeting.peers)))
    yield from _index("Greeting.worker_index", greeting.worker_index, greeting.n_sockets, "workers")
    for index, peer in enumerate(greeting.peers):
        if not peer.host:
            yield Fault(f"Greeting.peers[{index}].host", "a host name or address", "nothing")
        if not 1 <= peer.port <= 65_535:
            yield Fault(f"Greeting.peers[{index}].port", "1 to 65535", str(peer.port))


# Configuration --------------------------------------------------------------------------------------


def verify_net_config(
    net: NetConfig, limits: Limits, *, greeting: Greeting | None = None
) -> Iterator[Fault]:
    """Check pipes and pre-syncs; with a greeting, that both speak of the same number of nodes."""
    path = "NetConfig"
    if not 1 <= net.n_batches <= limits.n_batches:
        yield Fault(f"{path}.n_batches", f"1 to {limits.n_batches}", str(net.n_batches), "Limits.n_batches")
    if greeting is not None and net.n_nodes != greeting.n_sockets + 1:
        yield Fault(f"{path}.n_nodes", f"{greeting.n_sockets + 1}, as the greeting said", str(net.n_nodes))
    elif not 1 <= net.n_nodes <= limits.n_sockets + 1:
        yield Fault(f"{path}.n_nodes", f"1 to {limits.n_sockets + 1}", str(net.n_nodes), "Limits.n_sockets")
    memory = _MemoryTotal(limits, 0)
    for index, pipe in enumerate(net.pipes):
        yield from _verify_tensor(f"{path}.pipes[{index}].size", pipe.size, limits)
        yield from memory.add(f"{path}.pipes[{index}].size.n_bytes", pipe.size)
    for index, pre_sync in enumerate(net.pre_syncs):
        field = f"{path}.pre_syncs[{index}].pipe_index"
        yield from _index(field, pre_sync.pipe_index, len(net.pipes), "pipes")
        if pre_sync.pipe_index < len(net.pipes):
            size = net.pipes[pre_sync.pipe_index].size
            if (size.float_type, size.z, size.y, size.x) != (FloatType.F32, 1, net.n_batches, 1):
                yield Fault(field, f"a pipe for positions, F32 [1][{net.n_batches}][1]", _shape(size))


def verify_node_config(
    node: NodeConfig, net: NetConfig, limits: Limits, *, node_index: int | None = None
) -> Iterator[Fault]:
    """Check buffers, syncs and ops against a verified net config."""
    # Here, not above: op specs have schemas, and those load the parser.
    from dllama_proto.schemas.op_configs import OPS

    path = "NodeConfig"
    yield from _index(f"{path}.node_index", node.node_index, net.n_nodes, "nodes")
    if node_index is not None and node.node_index != node_index:
        yield Fault(
            f"{path}.node_index", f"{node_index}, the greeting's worker_index and 1", str(node.node_index)
        )
    memory = _MemoryTotal(limits, sum(pipe.size.n_bytes for pipe in net.pipes))
    for index, buffer in enumerate(node.buffers):
        yield from _verify_tensor(f"{path}.buffers[{index}].size", buffer.size, limits)
        yield from memory.add(f"{path}.buffers[{index}].size.n_bytes", buffer.size)
    weights: dict[WeightKey, str] = {}
    for index, segment in enumerate(node.segments):
        for sync_index, sync in enumerate(segment.syncs):
            yield from _verify_sync(f"{path}.segments[{index}].syncs[{sync_index}]", sync, net)
        for op_index, op in enumerate(segment.ops):
            op_path = f"{path}.segments[{index}].ops[{op_index}]"
            yield from _verify_weight_size(f"{op_path}.weight_size", op.weight_size, limits)
            yield from memory.add(f"{op_path}.weight_size.n_bytes", op.weight_size)
            if op.weight_size.n_bytes:
                yield from _verify_name(op_path, op, weights)
            yield from _verify_pointer(f"{op_path}.input", op.input, net, node)
            yield from _verify_pointer(f"{op_path}.output", op.output, net, node)
            if op.code in OPS:
                spec = OPS.get(op.code)
                yield from _verify_config(f"{op_path}.config", op, spec, net, node, limits)
            else:
                yield Fault(f"{op_path}.code", "a code of a registered op", f"{op.code!r}")


class _MemoryTotal:
    """What a node must reserve in all, so far."""

    def __init__(self, limits: Limits, total: int) -> None:
        self._limit = limits.memory_bytes
        self._total = total

    def add(self, path: str, size: Size3D) -> Iterator[Fault]:
        within = self._total <= self._limit
        self._total += size.n_bytes
        if within and self._total > self._limit:
            yield Fault(
                path,
                f"no more than {self._limit} bytes of pipes, buffers and weights in all",
                f"{self._total} with this one",
                "Limits.memory_bytes",
            )


def _index(path: str, index: int, count: int, what: str) -> Iterator[Fault]:
    if index >= count:
        yield Fault(path, f"less than {count}, the number of {what}", str(index))


def _shape(size: Size3D) -> str:
    return f"{size.float_type.name} [{size.z}][{size.y}][{size.x}]"


def _verify_tensor(path: str, size: Size3D, limits: Limits) -> Iterator[Fault]:
    """Check a pipe's or buffer's size: rows of x values, each of whole blocks."""
    if size.float_type is FloatType.UNK:
        yield Fault(f"{path}.float_type", "a type that can be stored", "-1 (UNK)")
    elif not is_whole_blocks(size.float_type, size.x):
        yield _broken_blocks(f"{path}.x", size.float_type, size.x)
    else:
        yield from _verify_extent(path, size, limits)


def _verify_weight_size(path: str, size: Size3D, limits: Limits) -> Iterator[Fault]:
    """Check a weight's size. A matmul's rows run along y, so only y times x must be whole blocks."""
    if size.float_type is FloatType.UNK:
        for name in ("z", "y", "x", "length", "n_bytes", "n_bytes_xy"):
            if getattr(size, name):
                yield Fault(f"{path}.{name}", "0, there being no weight", str(getattr(size, name)))
    elif not is_whole_blocks(size.float_type, size.y * size.x):
        yield _broken_blocks(f"{path}.y", size.float_type, size.y * size.x)
    else:
        yield from _verify_extent(path, size, limits)


def _broken_blocks(path: str, float_type: FloatType, n: int) -> Fault:
    return Fault(path, f"whole {float_type.name} blocks of {BLOCK_SIZE} values", counted(n, "value"))


def _verify_extent(path: str, size: Size3D, limits: Limits) -> Iterator[Fault]:
    for name in ("z", "y", "x"):
        if getattr(size, name) == 0:
            yield Fault(f"{path}.{name}", "1 or more", "0")
    length = size.z * size.y * size.x
    if size.length != length:
        yield Fault(f"{path}.length", f"{length}, z * y * x", str(size.length))
    total = n_bytes(size.float_type, length)
    if size.n_bytes != total:
        yield Fault(f"{path}.n_bytes", f"{total} for {_shape(size)}", str(size.n_bytes))
    elif size.n_bytes > limits.tensor_bytes:
        yield Fault(
            f"{path}.n_bytes", f"at most {limits.tensor_bytes}", str(size.n_bytes), "Limits.tensor_bytes"
        )
    plane = n_bytes(size.float_type, size.y * size.x)
    if size.n_bytes_xy != plane:
        yield Fault(f"{path}.n_bytes_xy", f"{plane} for {_shape(size)}", str(size.n_bytes_xy))


def _verify_sync(path: str, sync: SyncConfig, net: NetConfig) -> Iterator[Fault]:
    field = f"{path}.pipe_index"
    yield from _index(field, sync.pipe_index, len(net.pipes), "pipes")
    if sync.pipe_index < len(net.pipes):
        size = net.pipes[sync.pipe_index].size
        if (size.z, size.y) != (1, net.n_batches):
            yield Fault(field, f"a pipe [1][{net.n_batches}][x]", _shape(size))
        elif sync.sync_type is not SyncType.WITH_ROOT:
            yield from _verify_slices(field, size, net.n_nodes)


def _verify_slices(path: str, size: Size3D, n_nodes: int) -> Iterator[Fault]:
    """Check that a row can be cut into one slice for each node."""
    if size.x % n_nodes or not is_whole_blocks(size.float_type, size.x // n_nodes):
        yield Fault(path, f"rows that {counted(n_nodes, 'node')} can share in whole blocks", _shape(size))


def _verify_name(path: str, op: OpConfig, weights: dict[WeightKey, str]) -> Iterator[Fault]:
    other = weights.setdefault((op.name, op.index), path)
    if other != path:
        yield Fault(
            f"{path}.name",
            "a name and index that address one weight",
            f"{quoted(op.name)} of index {op.index}, as in {other}",
        )


def _verify_pointer(path: str, pointer: Pointer, net: NetConfig, node: NodeConfig) -> Iterator[Fault]:
    holders = net.pipes if pointer.source is PointerSource.PIPE else node.buffers
    what = "pipes" if pointer.source is PointerSource.PIPE else "buffers"
    yield from _index(f"{path}.index", pointer.index, len(holders), what)
    if pointer.index >= len(holders) or pointer.type is PointerType.RAW:
        return
    size = holders[pointer.index].size
    if size.y != net.n_batches:
        yield Fault(f"{path}.index", f"{what} of {counted(net.n_batches, 'row')}", _shape(size))
    elif pointer.type is PointerType.BATCHED_SLICE:
        yield from _verify_slices(f"{path}.index", size, net.n_nodes)


def _verify_config(
    path: str, op: OpConfig, spec: OpConfigSpec[Any], net: NetConfig, node: NodeConfig, limits: Limits
) -> Iterator[Fault]:
    config = op.config
    if not isinstance(config, spec.config):
        yield Fault(path, f"{spec.config.__name__} for {op.code.name}", type(config).__name__)
        return
    faults: list[Fault] = []
    for name, source, number in spec.indexes(config):
        if source is PointerSource.BUFFER:
            faults += _index(f"{path}.{name}", number, len(node.buffers), "buffers")
        else:
            faults += _verify_config_pipe(f"{path}.{name}", number, net)
    yield from faults
    for name, size in spec.sizes(config):
        yield from _verify_tensor(f"{path}.{name}", size, limits)
    if not faults:
        yield from spec.verify(path, config, net, node)


def _verify_config_pipe(path: str, number: int, net: NetConfig) -> Iterator[Fault]:
    """Check a pipe that an op finds a number for each row in: positions, rows of a cache."""
    yield from _index(path, number, len(net.pipes), "pipes")
    if number < len(net.pipes):
        size = net.pipes[number].size
        if (size.float_type, size.z, size.y, size.x) != (FloatType.F32, 1, net.n_batches, 1):
            yield Fault(path, f"a pipe F32 [1][{net.n_batches}][1]", _shape(size))


# Weights and inference ------------------------------------------------------------------------------


def verify_weight_header(
    header: WeightHeader, weights: Mapping[WeightKey, int], limits: Limits
) -> Iterator[Fault]:
    """Check a piece against the weights of a node: their sizes in bytes, by name and index."""
    size = weights.get((header.name, header.op_index))
    if size is None:
        yield Fault(
            "WeightHeader.name",
            "the name and index of an op with a weight",
            f"{quoted(header.name)} of index {header.op_index}",
        )
        return
    if header.offset > size:
        yield Fault("WeightHeader.offset", f"at most {size}, the size of the weight", str(header.offset))
    elif header.offset + header.n_bytes > size:
        yield Fault(
            "WeightHeader.n_bytes",
            f"at most {size - header.offset}, what the weight has from byte {header.offset} on",
            str(header.n_bytes),
        )
    if header.n_bytes > limits.weight_piece_bytes:
        yield Fault(
            "WeightHeader.n_bytes",
            f"at most {limits.weight_piece_bytes}",
            str(header.n_bytes),
            "Limits.weight_piece_bytes",
        )


def verify_control_packet(packet: ControlPacket, n_batches: int, seq_len: int | None) -> Iterator[Fault]:
    """Check that the rows fit pipes and caches. A stop packet's position means nothing."""
    if packet.batch_size > n_batches:
        yield Fault(
            "ControlPacket.batch_size", f"at most {n_batches}, NetConfig.n_batches", str(packet.batch_size)
        )
    elif not packet.is_stop and seq_len is not None and packet.position + packet.batch_size > seq_len:
        yield Fault(
            "ControlPacket.position",
            f"at most {seq_len - packet.batch_size} for {counted(packet.batch_size, 'row')} and seq_len {seq_len}",
            str(packet.position),
        )
