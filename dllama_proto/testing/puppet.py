"""A root or a worker that does what a script says, without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Protocol

from dllama_proto.connection import Connection, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import Closed, Event, NoEvent, PayloadChunk
from dllama_proto.exit_codes import ExitCode
from dllama_proto.limits import DEFAULT_LIMITS, Limits
from dllama_proto.testing.dialogue import Said
from dllama_proto.testing.script import Close, Expect, Send, SendBytes, Step, script_of

__all__ = ["Puppet", "ScriptError", "converse", "puppet_root", "puppet_worker"]

_PART_BYTES = 65_536


class ScriptError(AssertionError):
    """The other side did something else than the script expects; says at which step, what, and what came."""

    exit_code: ClassVar[ExitCode] = ExitCode.PEER


class Puppet:
    """One end of the link between root and worker that goes by a script.

    ``heard`` are the events that the other side said, chunks of a piece put together; ``connection`` is the end
    itself. Feed it with ``receive_data`` and ``receive_eof``, and send on what ``advance`` returns; or give
    :meth:`run` the two functions of a socket.
    """

    def __init__(self, role: Role, script: Iterable[Step], limits: Limits = DEFAULT_LIMITS) -> None:
        self.role = role
        self.connection = Connection(role, limits)
        self.heard: list[Event] = []
        self.has_closed = False
        self._script = tuple(script)
        self._at = 0
        self._at_eof = False
        self._chunks: list[PayloadChunk] = []

    @property
    def is_done(self) -> bool:
        """Whether every step has been taken."""
        return self._at == len(self._script)

    @property
    def n_wanted(self) -> int:
        """How many bytes to read next: never more than belongs to the message at hand, at least one."""
        return max(1, self.connection.n_wanted)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes of the other side. They are looked at by :meth:`advance`."""
        self.connection.receive_data(data)

    def receive_eof(self) -> None:
        """Note that the other side has hung up."""
        self.connection.receive_eof()
        self._at_eof = True

    def advance(self) -> bytes:
        """Take all steps that can be taken now; return the bytes to send.

        Raises ScriptError where the other side does something else, LocalProtocolError where the script
        says what the protocol does not allow (SendBytes can say anything).
        """
        said = bytearray()
        while not self.is_done:
            match self._script[self._at]:
                case Send(event):
                    said += self.connection.send(event)
                case SendBytes(data):
                    said += data
                case Close():
                    self.has_closed = True
                case Expect() as expected:
                    heard = self._next_event()
                    if heard is None:
                        break
                    if not expected.fits(heard):
                        raise self._error(f"got {_short(heard)}")
                    self.heard.append(heard)
            self._at += 1
        return bytes(said)

    def finish(self) -> None:
        """Raise ScriptError unless every step was taken, and nothing else said."""
        if not self.is_done:
            raise self._error("got nothing more")
        event = self._next_event()
        if event is not None and not isinstance(event, Closed):
            raise ScriptError(f"the script of {len(self._script)} steps is over, but got {_short(event)}")

    def run(
        self,
        receive: Callable[[int], bytes],
        send: Callable[[bytes], object],
        hang_up: Callable[[], object] = lambda: None,
    ) -> Sequence[Event]:
        """Take the whole script over a link; return what was heard.

        ``receive`` returns up to so many bytes and none at the end, as ``socket.recv``; ``send`` sends all, as
        ``socket.sendall``; ``hang_up`` is called for Close. A connection reset counts as the end. Raises
        ScriptError, LocalProtocolError, and what the functions raise, timeouts for example.
        """
        is_open = True
        while True:
            if data := self.advance():
                send(data)
            if self.has_closed and is_open:
                hang_up()
                is_open = False
            if self.is_done:
                return self.heard
            try:
                heard = receive(min(self.n_wanted, _PART_BYTES))
            except ConnectionResetError:
                heard = b""
            if heard:
                self.receive_data(heard)
            else:
                self.receive_eof()

    def _next_event(self) -> Event | None:
        """Return what came next, whole; None where more has to come first."""
        while True:
            try:
                event = self.connection.next_event()
            except RemoteProtocolError as error:
                raise self._error(f"the other side broke the protocol: {error}") from error
            if isinstance(event, NoEvent):
                # In our own turn a connection does not look at what comes, but the end can be told.
                return Closed(self.connection.phase) if self._at_eof else None
            if not isinstance(event, PayloadChunk):
                return event
            self._chunks.append(event)
            if not self.connection.payload_size:
                first, data = self._chunks[0], b"".join(chunk.data for chunk in self._chunks)
                self._chunks.clear()
                return PayloadChunk(first.offset, memoryview(data))

    def _error(self, got: str) -> ScriptError:
        step = "the end" if self.is_done else str(self._script[self._at])
        return ScriptError(
            f"{self.role.name.lower()}, step {self._at + 1} of {len(self._script)}, {step}: {got}"
        )


def puppet_root(dialogue: Iterable[Said], *, same_values: bool = True) -> Puppet:
    """Return a root that says its side of a dialogue, and expects the other; see :func:`script_of`."""
    return Puppet(Role.ROOT, script_of(dialogue, Role.ROOT, same_values=same_values))


def puppet_worker(dialogue: Iterable[Said], *, same_values: bool = True) -> Puppet:
    """Return a worker that says its side of a dialogue, and expects the other; see :func:`script_of`."""
    return Puppet(Role.WORKER, script_of(dialogue, Role.WORKER, same_values=same_values))


class _End(Protocol):
    """What :func:`converse` needs of each end."""

    @property
    def has_closed(self) -> bool: ...
    def advance(self) -> bytes: ...
    def receive_data(self, data: bytes) -> None: ...
    def receive_eof(self) -> None: ...


def converse(one: _End, other: _End) -> None:
    """Let two ends talk in memory until neither says anything more. Raises what their ``advance`` raises."""
    told = {id(one): False, id(other): False}
    while True:
        happened = False
        for speaker, listener in ((one, other), (other, one)):
            if data := speaker.advance():
                listener.receive_data(data)
                happened = True
            if speaker.has_closed and not told[id(speaker)]:
                told[id(speaker)] = happened = True
                listener.receive_eof()
        if not happened:
            return


def _short(event: Event) -> str:
    text = repr(event)
    return text if len(text) <= 200 else f"{text[:200]}…"
