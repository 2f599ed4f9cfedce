"""Plays a recorded C++ cluster to a live worker: every other node is a script that says what it said then.

Only the peer list is rewritten, because ports must be free on this machine. All bytes of a link are sent as
the socket takes them; TCP holds what the worker does not want yet.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dllama_proto.connection import Connection, NoEvent, Role, SliceData
from dllama_proto.enums import FloatType
from dllama_proto.messages import Greeting, NetConfig, NodeConfig, Peer
from dllama_proto.peer import PeerConnection
from dllama_proto.sync_plan import plan_link
from tests.helpers.captures import Session
from tests.helpers.replays import replay_root

__all__ = ["N_ACK_BYTES", "Recording", "RecordedSlice", "play", "read_recording", "slices_of"]

#: A worker answers its root with four acks before the first slice.
N_ACK_BYTES = 16

_TIMEOUT = 60.0


@dataclass(frozen=True)
class Recording:
    """What a root told one worker before the first forward."""

    greeting: Greeting
    net: NetConfig
    node: NodeConfig


@dataclass(frozen=True)
class RecordedSlice:
    """One row's slice as a node sent it."""

    where: str
    float_type: FloatType
    data: bytes


def read_recording(session: Session, node: int) -> Recording:
    """Decode what a root told a worker at the beginning of a recorded session."""
    heard = replay_root(session, node).heard[Role.WORKER]
    greeting = next(event for event in heard if isinstance(event, Greeting))
    net = next(event for event in heard if isinstance(event, NetConfig))
    config = next(event for event in heard if isinstance(event, NodeConfig))
    return Recording(greeting, net, config)


def slices_of(session: Session, recording: Recording, peer: int, data: bytes) -> Iterator[RecordedSlice]:
    """Take apart what a worker sent to a peer during inference (``data`` without the acks to the root)."""
    plan = plan_link(recording.net, recording.node, peer)
    connection = PeerConnection(plan.reversed())
    connection.receive_data(data)
    for position, batch_size in session.control_packets:
        if not batch_size:
            break
        connection.begin_forward(batch_size)
        if connection.unsent_size:
            connection.payload_sent(connection.unsent_size)
        while not isinstance(event := connection.next_event(), NoEvent):
            assert isinstance(event, SliceData)
            pipe = recording.net.pipes[event.transfer.pipe_index]
            where = f"position {position}, {event.transfer}, row {event.row}, pipe {pipe.name}"
            yield RecordedSlice(where, pipe.size.float_type, bytes(event.data))
    assert len(data) == sum(transfer.size for transfer in plan.sends) * sum(
        size for _, size in session.control_packets
    )


def play(
    session: Session,
    recording: Recording,
    port: int,
    change: Callable[[int, bytes], bytes] | None = None,
    before_mesh: Callable[[], object] | None = None,
) -> dict[int, bytes]:
    """Be every other node for the worker that listens on ``port``; return what it sent to each, by node.

    ``change`` may have a node say something else than it did once the mesh is joined; then each hangs up when it
    has said all. ``before_mesh`` is called when the worker is about to wait for its peers. Returns once the worker
    has closed all its links.
    """
    node = recording.node.node_index
    heard: dict[int, bytearray] = {peer: bytearray() for peer in range(session.n_nodes) if peer != node}
    with contextlib.ExitStack() as stack:
        listeners = {
            peer: stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for peer in range(node + 1, session.n_nodes)
        }
        others = [peer for peer in range(1, session.n_nodes) if peer != node]
        peers = tuple(
            Peer("127.0.0.1", listeners[peer].getsockname()[1] if peer in listeners else 1)
            for peer in others
        )
        greeting = Greeting(recording.greeting.n_sockets, recording.greeting.worker_index, peers)
        root = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT))
        old, new = (bytes(Connection(Role.ROOT).send(g)) for g in (recording.greeting, greeting))
        said = session.data(0, node)
        assert said.startswith(old)
        root.sendall(new)
        # The C++ root waits for this ack before any worker may dial another.
        assert root.recv(4, socket.MSG_WAITALL) == bytes.fromhex("aaaa6701")
        heard[0] += bytes.fromhex("aaaa6701")
        root_ready, said = said[len(old) : len(old) + 4], said[len(old) + 4 :]
        if before_mesh is not None:
            before_mesh()
        root.sendall(root_ready)
        links = {0: root}
        for peer in others:
            if peer < node:
                sock = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
            else:
                listeners[peer].settimeout(_TIMEOUT)
                sock, _ = listeners[peer].accept()
            links[peer] = stack.enter_context(sock)
        ready = threading.Event()
        threads: list[threading.Thread] = []
        for peer, sock in links.items():
            says = said if peer == 0 else session.data(peer, node)
            if change is not None:
                says = change(peer, says)
            when = {"announce": ready} if peer == 0 else {"wait_for": ready}
            threads += _talk(sock, says, heard[peer], **when, hangs_up=change is not None)
        for thread in threads:
            thread.join(_TIMEOUT)
            assert not thread.is_alive(), "the worker did not end the session"
    return {peer: bytes(data) for peer, data in heard.items()}


def _talk(
    sock: socket.socket,
    says: bytes,
    heard: bytearray,
    *,
    announce: threading.Event | None = None,
    wait_for: threading.Event | None = None,
    hangs_up: bool = False,
) -> tuple[threading.Thread, threading.Thread]:
    """Say and hear everything; a peer waits with speaking until the worker has acknowledged its weights.

    Between workers nothing is sent before the first forward, and a worker rejects a connection that sends earlier.
    """
    sock.settimeout(_TIMEOUT)

    def talk() -> None:
        if wait_for is not None:
            wait_for.wait(_TIMEOUT)
        with contextlib.suppress(OSError):
            sock.sendall(says)
            if hangs_up:
                sock.shutdown(socket.SHUT_WR)

    def listen() -> None:
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(1 << 16):
                heard.extend(data)
                if announce is not None and len(heard) >= N_ACK_BYTES:
                    announce.set()
        if announce is not None:
            announce.set()

    threads = threading.Thread(target=talk), threading.Thread(target=listen)
    for thread in threads:
        thread.start()
    return threads
