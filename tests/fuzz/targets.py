"""What is fed: the parser, and the binder with every kernel set.

Any error but those that are meant for bad input is a finding.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import numpy as np

from dllama_ops.errors import KernelDataError
from dllama_ops.plugins import make_plugin_manager
from dllama_ops.segments import compile_segment
from dllama_ops.table import KernelTable, build_kernel_table
from dllama_proto.connection import PAUSED, Ack, AckKind, Closed, Connection, NoEvent, Phase, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.messages import Greeting, NetConfig, NodeConfig
from dllama_worker.errors import ConfigRejected
from dllama_worker.node.binding import plan_node
from dllama_worker.node.executor import Executor
from dllama_worker.node.memory import NodeMemory, memory_need
from dllama_worker.node.weight_loading import WeightLoading

__all__ = ["Agreed", "MAX_BYTES", "bind_and_run", "kernel_sets", "parse"]

#: What a configuration may ask for: enough for every recording, little enough for thousands a minute.
MAX_BYTES = 24 << 20

#: Random numbers made at a time: they are memory, too.
_PIECE_BYTES = 1 << 20

#: Tokens and positions that no model has.
_BAD_NUMBERS = (-1.0, 1e6, 1e30, float("nan"), float("inf"), float("-inf"))

_ANSWERS = {
    Phase.GREETING_ACK: AckKind.GREETING,
    Phase.NET_CONFIG_ACK: AckKind.NET_CONFIG,
    Phase.NODE_CONFIG_ACK: AckKind.NODE_CONFIG,
    Phase.WEIGHTS_ACK: AckKind.WEIGHTS,
}


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a root and a worker have agreed on once the config is accepted."""

    greeting: Greeting
    net: NetConfig
    node: NodeConfig


def parse(said: bytes) -> Agreed | None:
    """Read everything as a worker does; return the greeting and the two configs if they came.

    A RemoteProtocolError ends it; any other passes.
    """
    connection = Connection(Role.WORKER)
    connection.receive_data(said)
    connection.receive_eof()
    found: dict[type, Any] = {}
    try:
        while True:
            event = connection.next_event()
            if event is PAUSED:
                if connection.phase is Phase.SLICES:
                    connection.payload_sent(connection.unsent_size)
                else:
                    connection.send(Ack(_ANSWERS[connection.phase]))
            elif isinstance(event, NoEvent | Closed):
                break
            elif isinstance(event, Greeting | NetConfig | NodeConfig):
                found[type(event)] = event
    except RemoteProtocolError:
        pass
    if NodeConfig not in found:
        return None
    return Agreed(found[Greeting], found[NetConfig], found[NodeConfig])


class _Nowhere:
    """A synchronizer without a network: pipes keep what the fuzzer put there."""

    def sync(self, segment_index: int, batch_size: int) -> None:
        pass


@cache
def _table(kernels: str) -> KernelTable:
    return build_kernel_table(make_plugin_manager(), kernels)


@cache
def kernel_sets() -> tuple[str, ...]:
    """Return the names of all kernel sets of this installation, each variant its own."""
    return tuple(sorted({entry.source for entry in _table("").entries}))


def bind_and_run(said: bytes, kernels: str) -> str:
    """Bind what the bytes configure to a kernel set and run it on any numbers; return how far it came.

    Raises whatever is neither the peer's fault nor the data's.
    """
    agreed = parse(said)
    if agreed is None:
        return "refused by the protocol"
    net, node = agreed.net, agreed.node
    need = memory_need(net, node)
    if need.in_all > MAX_BYTES:
        return "too large"
    random = Random(said)
    table = _table(kernels)
    memory = NodeMemory(net, node)
    try:
        planned = plan_node(net, node, memory, table, n_threads=random.choice((1, 2)))
    except ConfigRejected:
        return "refused by the binder"
    if replace(need, kernels=planned.kernel_memory()).in_all > MAX_BYTES:
        return "too large for its kernels"
    bound = planned.make_kernels()
    weights = WeightLoading(bound.weighted)
    numbers = np.random.default_rng(random.getrandbits(64))
    for (name, index), op in bound.weighted.items():
        size = op.context.weight.n_bytes if op.context.weight else 0
        for start in range(0, size, _PIECE_BYTES):
            piece = numbers.bytes(min(_PIECE_BYTES, size - start))
            weights.load(name, index, start, memoryview(piece))
    weights.finish(bound.segments)
    segments = [compile_segment(table.compilers, ops, 1).segment if ops else None for ops in bound.segments]
    executor = Executor(segments, _Nowhere())
    outcome = "run"
    for _ in range(3):
        for pipe, view in zip(net.pipes, memory.pipe_bytes, strict=True):
            if pipe.size.x == 1:  # tokens and positions
                np.frombuffer(view, np.float32)[:] = random.choice(
                    (0, 1, 5, 31, 100, 127, *_BAD_NUMBERS) if random.random() < 0.2 else (0, 1, 5, 31)
                )
            else:
                for start in range(0, len(view), _PIECE_BYTES):
                    part = view[start : start + _PIECE_BYTES]
                    part[:] = numbers.bytes(len(part))
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                executor.forward(random.randint(1, net.n_batches))
        except KernelDataError:
            outcome = "run, with bad data refused"
    return outcome
