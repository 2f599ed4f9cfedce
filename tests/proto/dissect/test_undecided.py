"""A connection until it is clear what it is: decided once, and everything kept is passed on, in order."""

from __future__ import annotations

from dllama_proto.connection import Role
from dllama_proto.dissect.events import LinkKind, NoticeEvent, Stream, UnexplainedEvent
from dllama_proto.dissect.tcp import Conversation, Direction
from dllama_proto.dissect.undecided import Undecided
from dllama_proto.messages import Greeting
from tests.proto import configs
from tests.proto.dissect.rig import account, check_every_byte, conversation, said

_GREETING = next(data for role, data, _ in said() if role is Role.ROOT)


class _Sink:
    """Notes what it is passed, and when."""

    def __init__(self) -> None:
        self.notes: list[tuple[int, bytes | int | bool]] = []

    def data(self, time: int, view: memoryview) -> None:
        self.notes.append((time, bytes(view)))

    def missing(self, time: int, n: int) -> None:
        self.notes.append((time, n))

    def end(self, time: int, *, reset: bool) -> None:
        self.notes.append((time, reset))


class _Finder:
    """Stands in for the finder of links: ``is_peer`` is what it says of a link between workers."""

    def __init__(self, made: Conversation, *, is_peer: bool = False) -> None:
        self.account, self.events = account()
        self.streams: list[Stream] = []
        self.is_peer = is_peer
        self.verdicts: list[object] = []
        self.n_asked = 0
        self.sinks = _Sink(), _Sink()
        self.conversation = made
        self.undecided = Undecided(self, made)

    def become_root_link(self, undecided: Undecided, dialler: Direction, greeting: Greeting) -> None:
        self.verdicts.append((dialler, greeting))
        self._replay(undecided)

    def become_peer_link(self, undecided: Undecided) -> bool:
        self.n_asked += 1
        if self.is_peer:
            self.verdicts.append("peer")
            self._replay(undecided)
        return self.is_peer

    def leave(self, undecided: Undecided, link: LinkKind) -> None:
        self.verdicts.append(link)

    def _replay(self, undecided: Undecided) -> None:
        for direction, sink in zip(
            (self.conversation.dialler, self.conversation.listener), self.sinks, strict=True
        ):
            direction.sink = sink
        undecided.replay()

    def say(self, direction: Direction, time: int, what: bytes | int | bool) -> None:
        assert direction.sink is not None
        if isinstance(what, bool):
            direction.ended = True
            direction.sink.end(time, reset=what)
        elif isinstance(what, int):
            direction.sink.missing(time, what)
        else:
            direction.sink.data(time, memoryview(what))


def _in_the_middle(number: int = 0) -> Conversation:
    """Return a connection of which the beginning was not captured."""
    made = conversation(number)
    made.dialled = made.dialler.begun = made.listener.begun = False
    return made


def test_a_greeting_makes_a_root_link_however_it_is_cut() -> None:
    made = conversation()
    finder = _Finder(made)
    for time, byte in enumerate(_GREETING, start=1):
        assert finder.verdicts == []
        finder.say(made.dialler, time, bytes([byte]))
    assert finder.verdicts == [(made.dialler, configs.GREETING)]
    assert finder.sinks[0].notes == [(time, bytes([byte])) for time, byte in enumerate(_GREETING, start=1)]


def test_all_that_was_kept_is_passed_on_in_order() -> None:
    made = conversation()
    finder = _Finder(made, is_peer=True)
    finder.say(made.dialler, 1, _GREETING[:3])
    finder.say(made.listener, 2, True)
    # The dialler's gap shows that this is no greeting that can be read.
    finder.say(made.dialler, 3, 5)
    assert finder.verdicts == ["peer"]
    assert finder.sinks[0].notes == [(1, _GREETING[:3]), (3, 5)]
    assert finder.sinks[1].notes == [(2, True)]


def test_who_dialled_is_told_by_the_greeting_where_it_is_not_known() -> None:
    made = _in_the_middle()
    finder = _Finder(made)
    finder.say(made.listener, 1, _GREETING)
    assert finder.verdicts == [(made.listener, configs.GREETING)]


def test_what_a_listener_says_first_is_no_root_link() -> None:
    made = conversation()
    finder = _Finder(made, is_peer=True)
    finder.say(made.listener, 1, _GREETING)
    assert finder.verdicts == ["peer"]


def test_another_program_is_left_alone() -> None:
    made = conversation()
    finder = _Finder(made)
    finder.say(made.dialler, 1, b"GET / HTTP/1.1\r\n\r\n")
    assert finder.verdicts == [LinkKind.FOREIGN]
    assert made.dialler.sink is made.listener.sink is None
    assert (finder.events, finder.streams) == ([], [])


def test_a_connection_without_its_first_bytes_is_given_up_and_counted() -> None:
    made = conversation()
    finder = _Finder(made)
    finder.say(made.dialler, 1, 4)
    for time in (2, 3):
        finder.say(made.dialler, time, bytes(10))
    finder.say(made.dialler, 4, 6)
    finder.say(made.dialler, 5, bytes(10))
    finder.say(made.dialler, 6, False)
    assert finder.verdicts == [LinkKind.UNKNOWN]
    assert finder.streams == list(finder.undecided.streams)
    [notice] = [event for event in finder.events if isinstance(event, NoticeEvent)]
    assert notice.text.startswith("the first bytes of this connection were not captured")
    check_every_byte([(4, None), (10, 2), (10, 3), (6, None), (10, 5)], finder.streams[0], finder.events)


def test_one_that_never_closes_is_counted_when_the_capture_ends() -> None:
    made = _in_the_middle()
    finder = _Finder(made)
    finder.say(made.dialler, 1, b"\xff" * 8)
    finder.say(made.listener, 2, bytes(10))
    finder.say(made.dialler, 3, bytes(10))
    assert not any(isinstance(event, UnexplainedEvent) for event in finder.events)
    finder.undecided.finish()
    finder.undecided.finish()
    check_every_byte([(8, 1), (10, 3)], finder.streams[0], finder.events)
    check_every_byte([(10, 2)], finder.streams[1], finder.events)
    assert {e.reason for e in finder.events if isinstance(e, UnexplainedEvent)} == {
        "the capture begins in the middle of this connection"
    }


def test_half_a_greeting_at_the_end_is_a_peers_slice_or_given_up() -> None:
    for is_peer in (True, False):
        made = conversation()
        finder = _Finder(made)
        finder.say(made.dialler, 1, _GREETING[:5])
        assert (finder.verdicts, finder.n_asked) == ([], 0)
        finder.is_peer = is_peer
        finder.undecided.finish()
        assert finder.verdicts == ["peer" if is_peer else LinkKind.UNKNOWN]
        if not is_peer:
            check_every_byte([(5, 1)], finder.streams[0], finder.events)


def test_one_on_which_nothing_is_said_is_nothing() -> None:
    made = conversation()
    finder = _Finder(made)
    finder.say(made.dialler, 1, False)
    assert finder.undecided.is_closed
    assert not finder.undecided.has_data
    finder.undecided.finish()
    assert (finder.verdicts, finder.events) == ([], [])


def test_streams_are_those_of_the_directions_asked_for() -> None:
    made = conversation()
    undecided = _Finder(made).undecided
    one, two = undecided.streams
    assert undecided.streams_of((made.dialler, made.listener)) == (one, two)
    assert undecided.streams_of((made.listener, made.dialler)) == (two, one)
    assert str(one) == "10.0.0.1:4000 > 10.0.0.3:9990"
