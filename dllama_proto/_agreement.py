"""What root and worker have agreed on so far, against which the next message is held.

The same for both ends, whether a message was sent or received.
"""

from __future__ import annotations

from collections.abc import Iterator

from dllama_proto._phases import Role
from dllama_proto.events import Event
from dllama_proto.limits import Limits
from dllama_proto.messages import (
    ControlPacket,
    Greeting,
    MultiHeadAttConfig,
    NetConfig,
    NodeConfig,
    RopeConfig,
    WeightHeader,
)
from dllama_proto.sync_plan import LinkPlan, plan_link
from dllama_proto.verify import (
    Fault,
    WeightKey,
    verify_control_packet,
    verify_greeting,
    verify_net_config,
    verify_node_config,
    verify_weight_header,
)

__all__ = ["Agreement"]

_ROOT = 0


class Agreement:
    """Everything said before that the next message must fit."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._greeting: Greeting | None = None
        self._net: NetConfig | None = None
        self._weights: dict[WeightKey, int] = {}
        self._seq_len: int | None = None
        self._node: NodeConfig | None = None

    def faults(self, event: Event) -> Iterator[Fault]:
        """Yield what is wrong with a message at this point of the session."""
        match event:
            case Greeting():
                return verify_greeting(event)
            case NetConfig():
                return verify_net_config(event, self._limits, greeting=self._greeting)
            case NodeConfig() if self._net is not None and self._greeting is not None:
                node_index = self._greeting.worker_index + 1
                return verify_node_config(event, self._net, self._limits, node_index=node_index)
            case WeightHeader():
                return verify_weight_header(event, self._weights, self._limits)
            case ControlPacket() if self._net is not None:
                return verify_control_packet(event, self._net.n_batches, self._seq_len)
            case _:
                return iter(())

    def learn(self, event: Event) -> None:
        """Remember what a message that has no fault says."""
        match event:
            case Greeting():
                self._greeting = event
            case NetConfig():
                self._net = event
            case NodeConfig():
                self._weights = {
                    (op.name, op.index): op.weight_size.n_bytes
                    for segment in event.segments
                    for op in segment.ops
                    if op.weight_size.n_bytes
                }
                self._seq_len = _seq_len(event)
                self._node = event
            case _:
                pass

    def link_plan(self, role: Role) -> LinkPlan:
        """Return what a forward moves over the link, as this end sees it; the node config must be known."""
        if self._net is None or self._node is None:
            raise RuntimeError("slices planned before the node config: a bug in the phase table")
        plan = plan_link(self._net, self._node, _ROOT)
        return plan if role is Role.WORKER else plan.reversed()


def _seq_len(node: NodeConfig) -> int | None:
    """Return how many positions the caches of a node hold, as far as its ops say."""
    known = []
    for segment in node.segments:
        for op in segment.ops:
            if isinstance(op.config, MultiHeadAttConfig):
                known.append(op.config.seq_len)
            elif isinstance(op.config, RopeConfig):
                known.append(op.config.slice.seq_len)
    return min(known, default=None)
