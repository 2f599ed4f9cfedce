"""Which connection is whose link: greetings, peer lists, the order of dialling; and no session takes another's."""

from __future__ import annotations

from dataclasses import replace

from dllama_proto.connection import Role
from dllama_proto.dissect.events import LinkKind, NoticeEvent, OpenedEvent, SliceEvent, UnexplainedEvent
from dllama_proto.dissect.link_finder import LinkFinder
from dllama_proto.dissect.tcp import Conversation
from dllama_proto.events import SliceData
from dllama_proto.messages import ControlPacket, Greeting, Peer
from dllama_proto.schemas.handshake import GREETING
from dllama_proto.sync_plan import plan_link
from tests.proto import configs
from tests.proto.dissect.rig import account, conversation, said

_WORKERS = ("10.0.0.2", "10.0.0.3", "10.0.0.4")
#: Worker 2 of the small cluster, as far as its first forward.
_ME = configs.NODE.node_index


def _greeting(worker: int, hosts: tuple[str, ...] = _WORKERS) -> Greeting:
    others = tuple(Peer(host, 9990) for index, host in enumerate(hosts, start=1) if index != worker)
    return Greeting(len(hosts), worker - 1, others)


class _Capture:
    """Connections of a capture, and what is said on them; the time counts what is said."""

    def __init__(self) -> None:
        kept, self.events = account()
        self.finder = LinkFinder(kept)
        self.time = self._number = 0

    def dial(self, source: str, destination: str, port: int = 0) -> Conversation:
        made = conversation(self._number, source, port or 4000 + self._number, destination)
        self._number += 1
        self.finder.open(made)
        return made

    def say(self, made: Conversation, data: bytes, *, listener: bool = False) -> None:
        direction = made.listener if listener else made.dialler
        self.time += 1
        direction.n_packets += 1
        if direction.sink is not None:
            direction.sink.data(self.time, memoryview(data))
        self.finder.advance_peer_links()

    def greet(self, source: str, greeting: Greeting, destination: str) -> Conversation:
        made = self.dial(source, destination)
        self.say(made, bytes(GREETING.build(greeting)))
        return made

    def configure(self, root: str = "10.0.0.1") -> Conversation:
        """Let the root tell worker 2 all up to the first forward."""
        made = self.greet(root, _greeting(_ME), _WORKERS[_ME - 1])
        for role, data, event in said()[1:]:
            if isinstance(event, SliceData):
                break
            self.say(made, data, listener=role is Role.WORKER)
            if isinstance(event, ControlPacket):
                break
        return made

    def kinds(self) -> list[tuple[LinkKind, int | None, int | None]]:
        return [(stream.link, stream.sender, stream.receiver) for stream in self.finder.streams]


def test_greetings_of_one_root_make_one_session() -> None:
    capture = _Capture()
    for worker, host in enumerate(_WORKERS, start=1):
        capture.greet("10.0.0.1", _greeting(worker), host)
    [session] = capture.finder.sessions
    assert sorted(session.root_links) == [1, 2, 3]
    assert capture.kinds() == [
        (LinkKind.ROOT, *ends) for worker in (1, 2, 3) for ends in ((0, worker), (worker, 0))
    ]
    assert sum(isinstance(event, OpenedEvent) for event in capture.events) == 3


def test_a_worker_greeted_again_is_another_session() -> None:
    capture = _Capture()
    for _ in range(2):
        capture.greet("10.0.0.1", _greeting(1), _WORKERS[0])
    assert [sorted(session.root_links) for session in capture.finder.sessions] == [[1], [1]]
    assert [stream.session for stream in capture.finder.streams] == [0, 0, 1, 1]


def test_another_root_and_another_list_of_peers_are_other_sessions() -> None:
    capture = _Capture()
    capture.greet("10.0.0.1", _greeting(1), _WORKERS[0])
    capture.greet("10.0.0.9", _greeting(2), _WORKERS[1])
    capture.greet("10.0.0.1", _greeting(3, ("10.0.0.7", "10.0.0.8", "10.0.0.4")), "10.0.0.4")
    assert len(capture.finder.sessions) == 3


def test_a_link_between_workers_is_found_by_its_address_once_something_is_said() -> None:
    capture = _Capture()
    capture.configure()
    peer = capture.dial(_WORKERS[_ME - 1], _WORKERS[2])
    assert len(capture.finder.streams) == 2
    [first, *_] = plan_link(configs.NET, configs.NODE, 3).sends
    capture.say(peer, bytes(first.size))
    assert capture.kinds()[2:] == [(LinkKind.PEER, 2, 3), (LinkKind.PEER, 3, 2)]
    [slice_] = [event for event in capture.events if isinstance(event, SliceEvent)]
    assert (slice_.transfer, slice_.row, slice_.forward.index) == (first, 0, 0)


def test_what_peers_say_before_the_forward_waits_for_it() -> None:
    """The root's control packet may be captured after the slices that it leads to."""
    capture = _Capture()
    made = capture.greet("10.0.0.1", _greeting(_ME), _WORKERS[_ME - 1])
    peer = capture.dial(_WORKERS[_ME - 1], _WORKERS[2])
    [first, *_] = plan_link(configs.NET, configs.NODE, 3).sends
    for role, data, event in said()[1:]:
        if isinstance(event, ControlPacket):
            capture.say(peer, bytes(first.size))
            assert not any(isinstance(event, SliceEvent) for event in capture.events)
            capture.say(made, data)
            break
        capture.say(made, data, listener=role is Role.WORKER)
    assert sum(isinstance(event, SliceEvent) for event in capture.events) == 1


def test_connections_to_one_listener_are_told_apart_by_the_order_of_dialling() -> None:
    """Workers 1 and 2 share an address; both dial worker 3, and the second speaks first."""
    capture = _Capture()
    hosts = ("10.0.0.2", "10.0.0.2", "10.0.0.4")
    made = capture.dial("10.0.0.1", "10.0.0.2")
    capture.say(made, bytes(GREETING.build(_greeting(_ME, hosts))))
    for role, data, event in said()[1:]:
        capture.say(made, data, listener=role is Role.WORKER)
        if isinstance(event, ControlPacket):
            break
    # What worker 3 was told says what it and each of them move.
    capture.finder.sessions[0].learn(3, replace(configs.NODE, node_index=3))
    one, two = (capture.dial("10.0.0.2", "10.0.0.4") for _ in range(2))
    capture.say(two, bytes(8))
    found = {stream.connection: (stream.sender, stream.receiver) for stream in capture.finder.streams[2::2]}
    assert found == {one.number: (1, 3), two.number: (2, 3)}


def test_other_connections_are_left_or_given_up() -> None:
    capture = _Capture()
    capture.configure()
    stranger = capture.dial("10.0.0.9", "10.0.0.8")
    capture.say(stranger, b"GET / HTTP/1.1\r\n\r\n")
    assert stranger.dialler.sink is None
    cut = conversation(77, "10.0.0.9", 5000, "10.0.0.8")
    cut.dialled = cut.dialler.begun = cut.listener.begun = False
    capture.finder.open(cut)
    capture.say(cut, b"\xff" * 12)
    capture.finder.finish()
    lost = [stream for stream in capture.finder.streams if stream.link is LinkKind.UNKNOWN]
    assert [(stream.connection, stream.unexplained) for stream in lost] == [(77, 12), (77, 0)]
    assert any(isinstance(event, UnexplainedEvent) and event.size == 12 for event in capture.events)


def test_a_greeting_in_the_middle_of_a_capture_says_so() -> None:
    capture = _Capture()
    made = capture.dial("10.0.0.1", _WORKERS[0])
    made.dialled = made.dialler.begun = False
    capture.say(made, bytes(GREETING.build(_greeting(1))))
    [notice] = [event for event in capture.events if isinstance(event, NoticeEvent)]
    assert notice.text == "the beginning of this connection was not captured, but its greeting was"


def test_finishing_says_of_every_link_that_it_did_not_end() -> None:
    capture = _Capture()
    capture.configure()
    capture.finder.finish()
    texts = [event.text for event in capture.events if isinstance(event, NoticeEvent)]
    assert texts == ["the capture ends before this connection does (SLICES comes next)"] * 2


def test_names_in_the_list_of_peers_are_no_addresses_to_compare() -> None:
    capture = _Capture()
    capture.greet("10.0.0.1", _greeting(1, ("a.local", "b.local", "c.local")), _WORKERS[0])
    other = replace(_greeting(2), peers=(Peer("a.local", 9990), Peer("c.local", 9990)))
    capture.greet("10.0.0.1", other, _WORKERS[1])
    assert len(capture.finder.sessions) == 1
