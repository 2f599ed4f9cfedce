"""What a puppet does, step by step, and how a dialogue becomes that for one side of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from dllama_proto.connection import Role
from dllama_proto.events import Closed, Event, SliceData
from dllama_proto.testing.dialogue import Said

__all__ = ["Close", "Expect", "Send", "SendBytes", "Step", "script_of"]


@dataclass(frozen=True, slots=True)
class Send:
    """Say something that the protocol allows now."""

    event: Event

    def __str__(self) -> str:
        return f"send {_words(self.event)}"


@dataclass(frozen=True, slots=True)
class SendBytes:
    """Say any bytes, allowed or not. What is expected afterwards is what would be without them."""

    data: bytes

    def __str__(self) -> str:
        return f"send {len(self.data)} bytes ({self.data[:8].hex(' ')}{' …' if len(self.data) > 8 else ''})"


@dataclass(frozen=True, slots=True)
class Expect:
    """Wait for the next event: this very one, or any of a class. The bytes of a slice need not be the same.

    Chunks of a weight's piece come as one. ``Expect(Closed)`` waits for the other side to hang up, whatever
    the phase.
    """

    what: Event | type[Event]
    same_values: bool = True

    def fits(self, event: Event) -> bool:
        """Tell whether this is what was expected."""
        if isinstance(self.what, type):
            return isinstance(event, self.what)
        if isinstance(self.what, Closed):
            return isinstance(event, Closed)
        if isinstance(event, SliceData) and isinstance(self.what, SliceData) and not self.same_values:
            return (event.transfer, event.row) == (self.what.transfer, self.what.row)
        return event == self.what

    def __str__(self) -> str:
        return f"expect {_words(self.what)}"


@dataclass(frozen=True, slots=True)
class Close:
    """Hang up: nothing is said after this, but the other side is still listened to."""

    def __str__(self) -> str:
        return "close"


Step = Send | SendBytes | Expect | Close


def script_of(dialogue: Iterable[Said], role: Role, *, same_values: bool = True) -> list[Step]:
    """Return the script of one side: what it says is sent, what the other says is expected.

    In a forward its own slices go first: the other side may wait for any of them before it says its own. With
    ``same_values`` False the other side may compute other numbers.
    """
    steps: list[Step] = []
    for is_slice, group in groupby(dialogue, lambda said: isinstance(said.event, SliceData)):
        said = list(group)
        if is_slice:
            said.sort(key=lambda one: one.role is not role)  # stable
        steps += [Send(one.event) if one.role is role else Expect(one.event, same_values) for one in said]
    return steps


def _words(what: Event | type[Event]) -> str:
    """Name an event in a few words: a configuration has thousands of fields."""
    text = what.__name__ if isinstance(what, type) else repr(what)
    return text if len(text) <= 100 else f"{text[:100]}…"
