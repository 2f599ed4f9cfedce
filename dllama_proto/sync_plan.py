"""Which bytes every sync of a forward moves between which nodes: a pure function of the configuration.

A worker sends and receives by this plan; a connection and the dissector name every slice on a link by it.
Sources: ``nn-network.cpp`` (``NnNetworkNodeSynchronizer::sync``, ``syncWithRoot``, ``syncNodeSlices``).

A sync moves, for each of the first ``batch_size`` rows of its pipe, the same columns of the row. On one
link the rows of a sync follow each other, then those of the next sync: nothing marks where one ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllama_proto.enums import SyncType
from dllama_proto.floats import n_bytes
from dllama_proto.messages import NetConfig, NodeConfig, SyncConfig

__all__ = [
    "LinkPlan",
    "SyncPlan",
    "SyncStep",
    "Transfer",
    "node_of_socket",
    "plan_link",
    "plan_syncs",
    "socket_of_node",
]

_ROOT = 0


def node_of_socket(node_index: int, socket_index: int) -> int:
    """Return the node that a node's socket leads to: sockets count the other nodes in order."""
    return socket_index if socket_index < node_index else socket_index + 1


def socket_of_node(node_index: int, peer: int) -> int:
    """Return the socket by which a node reaches another. Raises ValueError for the node itself."""
    if peer == node_index:
        raise ValueError(f"node {node_index} has no socket to itself")
    return peer if peer < node_index else peer - 1


@dataclass(frozen=True, slots=True)
class Transfer:
    """The columns of a pipe's rows that one node sends to another in one sync.

    Of each row (``row_bytes`` long), ``size`` bytes from byte ``start`` on. ``sync_index`` counts
    within the segment.
    """

    segment_index: int
    sync_index: int
    sync_type: SyncType
    pipe_index: int
    sender: int
    receiver: int
    row_bytes: int
    start: int
    size: int

    def __str__(self) -> str:
        return f"segments[{self.segment_index}].syncs[{self.sync_index}] from node {self.sender}"


@dataclass(frozen=True, slots=True)
class SyncStep:
    """One sync as one node sees it: all that it sends and receives, in the order of its sockets."""

    segment_index: int
    sync_index: int
    sync_type: SyncType
    pipe_index: int
    row_bytes: int
    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What one forward moves over one link, in the order on the wire, as ``node_index`` sees it."""

    node_index: int
    peer: int
    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]

    def reversed(self) -> LinkPlan:
        """Return the same link as the peer sees it."""
        return LinkPlan(self.peer, self.node_index, self.receives, self.sends)


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Every sync of a forward: ``segments[i]`` are the steps that follow the ops of segment i."""

    node_index: int
    n_nodes: int
    segments: tuple[tuple[SyncStep, ...], ...]


def plan_syncs(net: NetConfig, node: NodeConfig) -> SyncPlan:
    """Plan every sync of a forward as ``node.node_index`` sees it.

    The configuration must have been verified (:mod:`dllama_proto.verify`): pipes exist and slices are
    whole. There is a transfer for each sync and node: what that may take is for the caller to know.
    """
    others = [other for other in range(net.n_nodes) if other != node.node_index]
    return SyncPlan(node.node_index, net.n_nodes, _plan(net, node, others))


def plan_link(net: NetConfig, node: NodeConfig, peer: int) -> LinkPlan:
    """Plan what a forward moves over the link between ``node`` and one other, as the former sees it.

    At most two transfers a sync, however large the cluster. Raises ValueError where there is no such node.
    """
    if not 0 <= peer < net.n_nodes or peer == node.node_index:
        raise ValueError(f"node {node.node_index} of {net.n_nodes} has no link to node {peer}")
    steps = [step for segment in _plan(net, node, [peer]) for step in segment]
    return LinkPlan(
        node.node_index,
        peer,
        tuple(transfer for step in steps for transfer in step.sends),
        tuple(transfer for step in steps for transfer in step.receives),
    )


def _plan(net: NetConfig, node: NodeConfig, others: Sequence[int]) -> tuple[tuple[SyncStep, ...], ...]:
    """Plan all syncs, as far as these other nodes take part."""
    return tuple(
        tuple(
            _step(net, node.node_index, segment_index, sync_index, sync, others)
            for sync_index, sync in enumerate(segment.syncs)
        )
        for segment_index, segment in enumerate(node.segments)
    )


def _step(
    net: NetConfig,
    node_index: int,
    segment_index: int,
    sync_index: int,
    sync: SyncConfig,
    others: Sequence[int],
) -> SyncStep:
    size = net.pipes[sync.pipe_index].size
    row_bytes = n_bytes(size.float_type, size.x)

    def transfer(sender: int, receiver: int) -> Transfer:
        if sync.sync_type is SyncType.WITH_ROOT:
            start, length = 0, row_bytes
        else:
            length = row_bytes // net.n_nodes
            start = length * sender
        return Transfer(
            segment_index,
            sync_index,
            sync.sync_type,
            sync.pipe_index,
            sender,
            receiver,
            row_bytes,
            start,
            length,
        )

    return SyncStep(
        segment_index,
        sync_index,
        sync.sync_type,
        sync.pipe_index,
        row_bytes,
        tuple(transfer(node_index, other) for other in others if _sends(sync.sync_type, node_index, other)),
        tuple(transfer(other, node_index) for other in others if _sends(sync.sync_type, other, node_index)),
    )


def _sends(sync_type: SyncType, sender: int, receiver: int) -> bool:
    if sync_type is SyncType.WITH_ROOT:
        return sender == _ROOT
    if sync_type is SyncType.NODE_SLICES_EXCEPT_ROOT:
        return receiver == _ROOT
    return True
