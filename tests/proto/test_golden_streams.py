"""Every recorded stream: decoded to its last byte by one end, encoded back identically by the other."""

from __future__ import annotations

import pytest

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.events import NEED_DATA, PAUSED, Ack, AckKind, Closed, PayloadChunk, SliceData
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, WeightHeader
from dllama_proto.testing import (
    Cut,
    bytewise,
    bytewise_but_payload,
    in_random_pieces,
    just_as_wanted,
    replay,
)
from tests.helpers.captures import CASES, CUT_CASE, Session, load, read_flows
from tests.helpers.replays import replay_link, replay_root

_LINKS = [(case, worker) for case in CASES for worker in load(case).workers]
_PEERS = [(case, a, b) for case in CASES for a in load(case).workers for b in load(case).workers if a < b]
_SMALLEST = "tiny-q40-2n"

_FEEDS: dict[str, Cut] = {
    "as wanted": just_as_wanted,
    "random 1": in_random_pieces(1),
    "random 2": in_random_pieces(2),
}


def _check_root_link(session: Session, worker: int, cut: Cut) -> None:
    link = replay_root(session, worker, cut)
    assert link.sent[Role.ROOT] == session.data(0, worker)
    assert link.sent[Role.WORKER] == session.data(worker, 0)
    assert link.heard == replay_root(session, worker).heard


@pytest.mark.parametrize(("case", "worker"), _LINKS)
def test_root_link_decodes_whole_and_encodes_back(case: str, worker: int) -> None:
    session = load(case)
    link = replay_root(session, worker)
    assert link.sent[Role.ROOT] == session.data(0, worker)
    assert link.sent[Role.WORKER] == session.data(worker, 0)
    assert link.heard[Role.WORKER][-1] == link.heard[Role.ROOT][-1] == Closed(Phase.CLOSED)
    packets = [event for event in link.heard[Role.WORKER] if isinstance(event, ControlPacket)]
    assert [(packet.position, packet.batch_size) for packet in packets] == list(session.control_packets)


@pytest.mark.parametrize(("case", "worker"), _LINKS)
def test_what_a_root_link_says_is_what_was_configured(case: str, worker: int) -> None:
    session = load(case)
    events = replay_root(session, worker).heard[Role.WORKER]
    counts = session.index["worker_config"]
    (greeting,) = (event for event in events if isinstance(event, Greeting))
    (net,) = (event for event in events if isinstance(event, NetConfig))
    (node,) = (event for event in events if isinstance(event, NodeConfig))
    assert (greeting.n_sockets, greeting.worker_index) == (session.n_nodes - 1, worker - 1)
    assert [peer.port for peer in greeting.peers] == [
        port for other, port in enumerate(session.ports, start=1) if other != worker
    ]
    assert (net.n_nodes, node.node_index) == (session.n_nodes, worker)
    assert len(net.pipes) == counts["n_pipes"]
    assert len(node.buffers) == counts["n_buffers"]
    assert len(node.segments) == counts["n_segments"]
    assert sum(len(segment.ops) for segment in node.segments) == counts["n_ops"]
    headers = [event for event in events if isinstance(event, WeightHeader)]
    assert len(headers) == counts["n_weight_pieces"]
    chunks = [event for event in events if isinstance(event, PayloadChunk)]
    assert [(c.offset, len(c.data)) for c in chunks] == [(h.offset, h.n_bytes) for h in headers]


@pytest.mark.parametrize("feed", _FEEDS)
@pytest.mark.parametrize("case", CASES)
def test_root_link_gives_the_same_events_however_it_is_fed(case: str, feed: str) -> None:
    session = load(case)
    _check_root_link(session, session.n_nodes - 1, _FEEDS[feed])


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != _SMALLEST])
def test_root_link_gives_the_same_events_bytewise_but_for_payload(case: str) -> None:
    session = load(case)
    _check_root_link(session, session.n_nodes - 1, bytewise_but_payload)


@pytest.mark.slow
def test_root_link_gives_the_same_events_bytewise() -> None:
    _check_root_link(load(_SMALLEST), 1, bytewise)


@pytest.mark.parametrize(("case", "one", "other"), _PEERS)
def test_peer_link_decodes_and_encodes_back(case: str, one: int, other: int) -> None:
    session = load(case)
    link = replay_link(session, one, other)
    assert link.sent[one] == session.data(one, other)
    assert link.sent[other] == session.data(other, one)
    assert link.heard[one][-1] == link.heard[other][-1] == Closed(Phase.IDLE)


@pytest.mark.parametrize("feed", [*_FEEDS, "bytewise"])
@pytest.mark.parametrize("case", [case for case in CASES if load(case).n_nodes == 4])
def test_peer_link_gives_the_same_events_however_it_is_fed(case: str, feed: str) -> None:
    session = load(case)
    cut = bytewise if feed == "bytewise" else _FEEDS[feed]
    link = replay_link(session, 2, 3, cut)
    assert link.sent[2] == session.data(2, 3)
    assert link.sent[3] == session.data(3, 2)
    assert link.heard == replay_link(session, 2, 3).heard


def test_a_worker_tells_other_workers_what_it_tells_the_root() -> None:
    """Slices are attributed rightly: by their names, what node 2 sent to node 3 it also sent to the root."""
    session = load("qwen3-q40-4n")

    def named(events: list[object]) -> dict[tuple[int, ...], list[bytes]]:
        found: dict[tuple[int, ...], list[bytes]] = {}
        for event in events:
            if isinstance(event, SliceData):
                transfer = event.transfer
                key = (
                    transfer.segment_index,
                    transfer.sync_index,
                    transfer.start,
                    transfer.size,
                    event.row,
                )
                found.setdefault(key, []).append(bytes(event.data))
        return found

    to_root = named(replay_root(session, 2).heard[Role.ROOT])
    to_peer = named(replay_link(session, 2, 3).heard[3])
    assert len(to_peer) > 10
    for key, rows in to_peer.items():
        assert to_root[key] == rows


@pytest.mark.parametrize(("case", "worker"), [("tiny-q40-2n", 1), ("gqa-q40-4n", 2)])
def test_payloads_can_be_taken_in_place_of_events(case: str, worker: int) -> None:
    """As a worker runs: reads no more than wanted, receives payloads into its own memory, reports counts."""
    session = load(case)
    data = memoryview(session.data(0, worker))
    at = 0
    connection = Connection(Role.WORKER)
    answers = iter([AckKind.GREETING, AckKind.NET_CONFIG, AckKind.NODE_CONFIG, AckKind.WEIGHTS])
    taken = bytearray()
    while not isinstance(event := connection.next_event(), Closed):
        if event is NEED_DATA:
            n = connection.n_wanted
            assert n > 0
            if data[at : at + n]:
                connection.receive_data(data[at : at + n])
            else:
                connection.receive_eof()
            at = min(at + n, len(data))
        elif event is PAUSED:
            assert connection.n_wanted == 0
            connection.send(Ack(next(answers)))
        elif isinstance(event, WeightHeader | ControlPacket):
            size = connection.payload_size
            view = memoryview(bytearray(size))
            assert connection.take_payload(view) == 0, "more was read than wanted"
            for start in range(0, size, 1000):
                part = data[at : at + min(1000, size - start)]
                view[start : start + len(part)] = part
                at += len(part)
                connection.payload_received(len(part))
            taken += view
            while connection.unsent_size:
                connection.payload_sent(min(700, connection.unsent_size))
    assert event == Closed(Phase.CLOSED)
    assert at == len(data)
    events = replay_root(session, worker).heard[Role.WORKER]
    assert taken == b"".join(e.data for e in events if isinstance(e, PayloadChunk | SliceData))


def test_a_recording_that_was_cut_decodes_as_far_as_it_goes() -> None:
    root, worker = read_flows(CUT_CASE)
    session = load(_SMALLEST)
    assert session.data(0, 1)[:1000] == root.data[:1000]
    link = replay(root.data, worker.data, has_ended=False)
    sent, heard = link.sent[Role.ROOT], link.heard[Role.WORKER]
    assert sent == root.data[: len(sent)]
    assert len(root.data) - len(sent) < 600
    assert any(isinstance(event, SliceData) for event in heard)
    assert not any(isinstance(event, Closed) for event in heard)
