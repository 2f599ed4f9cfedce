"""The sync plan, against the C++ semantics written out once more and against recorded byte counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllama_proto.connection import Role
from dllama_proto.enums import FloatType, SyncType
from dllama_proto.messages import NetConfig, NodeConfig, PipeConfig, SegmentConfig, Size3D, SyncConfig
from dllama_proto.sync_plan import Transfer, node_of_socket, plan_link, plan_syncs, socket_of_node
from tests.helpers.captures import CASES, load
from tests.helpers.replays import replay_root

_NET = NetConfig(
    n_batches=2,
    n_nodes=4,
    pipes=(
        PipeConfig(Size3D.of(FloatType.F32, y=2, x=64), "X"),
        PipeConfig(Size3D.of(FloatType.Q80, y=2, x=128), "ZQ"),
    ),
    pre_syncs=(),
)


def _node(node_index: int, *syncs: SyncConfig) -> NodeConfig:
    return NodeConfig(node_index, (), (SegmentConfig((), ()), SegmentConfig(syncs, ())))


def _moves(transfers: tuple[Transfer, ...]) -> list[tuple[int, int, int, int]]:
    return [(t.sender, t.receiver, t.start, t.size) for t in transfers]


@pytest.mark.parametrize("n_nodes", [2, 4, 8])
def test_sockets_count_the_other_nodes(n_nodes: int) -> None:
    for node in range(n_nodes):
        others = [node_of_socket(node, socket) for socket in range(n_nodes - 1)]
        assert others == [other for other in range(n_nodes) if other != node]
        assert [socket_of_node(node, other) for other in others] == list(range(n_nodes - 1))


def test_a_node_has_no_socket_to_itself() -> None:
    with pytest.raises(ValueError, match="no socket to itself"):
        socket_of_node(2, 2)


def test_with_root_moves_whole_rows_from_the_root() -> None:
    sync = SyncConfig(0, SyncType.WITH_ROOT)
    root = plan_syncs(_NET, _node(0, sync)).segments[1][0]
    assert _moves(root.sends) == [(0, 1, 0, 256), (0, 2, 0, 256), (0, 3, 0, 256)]
    assert root.receives == ()
    worker = plan_syncs(_NET, _node(2, sync)).segments[1][0]
    assert worker.sends == ()
    assert _moves(worker.receives) == [(0, 2, 0, 256)]


def test_node_slices_move_every_slice_to_every_other_node() -> None:
    step = plan_syncs(_NET, _node(2, SyncConfig(1, SyncType.NODE_SLICES))).segments[1][0]
    # A row of 128 values in Q80 has 4 blocks of 34 bytes, one for each node.
    assert step.row_bytes == 136
    assert _moves(step.sends) == [(2, 0, 68, 34), (2, 1, 68, 34), (2, 3, 68, 34)]
    assert _moves(step.receives) == [(0, 2, 0, 34), (1, 2, 34, 34), (3, 2, 102, 34)]


def test_slices_except_root_go_to_the_root_alone() -> None:
    sync = SyncConfig(0, SyncType.NODE_SLICES_EXCEPT_ROOT)
    root = plan_syncs(_NET, _node(0, sync)).segments[1][0]
    assert root.sends == ()
    assert _moves(root.receives) == [(1, 0, 64, 64), (2, 0, 128, 64), (3, 0, 192, 64)]
    worker = plan_syncs(_NET, _node(3, sync)).segments[1][0]
    assert _moves(worker.sends) == [(3, 0, 192, 64)]
    assert worker.receives == ()


def test_steps_keep_the_order_of_segments_and_syncs() -> None:
    syncs = (SyncConfig(1, SyncType.NODE_SLICES), SyncConfig(0, SyncType.WITH_ROOT))
    plan = plan_syncs(_NET, _node(1, *syncs))
    assert [len(segment) for segment in plan.segments] == [0, 2]
    with_root = plan_link(_NET, _node(1, *syncs), 0)
    assert [(t.segment_index, t.sync_index, t.pipe_index) for t in with_root.receives] == [
        (1, 0, 1),
        (1, 1, 0),
    ]
    assert str(plan_link(_NET, _node(1, *syncs), 3).receives[0]) == "segments[1].syncs[0] from node 3"


@pytest.mark.parametrize("sync_type", SyncType)
def test_both_ends_of_every_link_plan_the_same(sync_type: SyncType) -> None:
    nodes = [_node(node, SyncConfig(1, sync_type)) for node in range(4)]
    for one in range(4):
        for other in range(4):
            if one != other:
                assert plan_link(_NET, nodes[one], other).reversed() == plan_link(_NET, nodes[other], one)


def test_a_link_is_the_part_of_the_whole_plan_that_has_to_do_with_the_peer() -> None:
    node = _node(2, *(SyncConfig(pipe, sync_type) for pipe in (0, 1) for sync_type in SyncType))
    steps = [step for segment in plan_syncs(_NET, node).segments for step in segment]
    for peer in (0, 1, 3):
        link = plan_link(_NET, node, peer)
        assert link.sends == tuple(t for step in steps for t in step.sends if t.receiver == peer)
        assert link.receives == tuple(t for step in steps for t in step.receives if t.sender == peer)


@pytest.mark.parametrize("peer", [-1, 2, 4])
def test_there_is_no_link_to_oneself_or_to_nobody(peer: int) -> None:
    with pytest.raises(ValueError, match="has no link to node"):
        plan_link(_NET, _node(2), peer)


def test_one_node_alone_moves_nothing() -> None:
    alone = replace(_NET, n_nodes=1)
    for sync_type in SyncType:
        step = plan_syncs(alone, _node(0, SyncConfig(0, sync_type))).segments[1][0]
        assert (step.sends, step.receives) == ((), ())


@pytest.mark.parametrize("case", CASES)
def test_recorded_links_carry_what_is_planned_and_no_byte_more(case: str) -> None:
    session = load(case)
    n_rows = sum(batch_size for _, batch_size in session.control_packets)
    for worker in session.workers:
        events = replay_root(session, worker).heard[Role.WORKER]
        (net,) = (event for event in events if isinstance(event, NetConfig))
        (node,) = (event for event in events if isinstance(event, NodeConfig))
        for peer in range(session.n_nodes):
            if peer == worker:
                continue
            link = plan_link(net, node, peer)
            sent = session.stream(worker, peer)
            planned = n_rows * sum(transfer.size for transfer in link.sends)
            assert len(sent.data) - sent.bytes_before_inference == planned
            received = session.stream(peer, worker)
            planned = n_rows * sum(transfer.size for transfer in link.receives)
            packets = 8 * len(session.control_packets) if peer == 0 else 0
            assert len(received.data) - received.bytes_before_inference == planned + packets
