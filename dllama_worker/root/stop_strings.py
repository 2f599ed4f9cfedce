"""Texts before which a generated text ends, also where one is spread over several tokens."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """Passes a text on, piece by piece, up to the first of some strings that becomes complete in it.

    What may be the beginning of one is kept back until it is clear. How the text is cut into pieces does not
    matter.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._kept = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Return what may be shown now, and the string that ends the text; None while there is none."""
        text, self._kept = self._kept + text, ""
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, stop = min(found)
            return text[:at], stop
        shown = len(text) - self._unclear(text)
        self._kept = text[shown:]
        return text[:shown], None

    def rest(self) -> str:
        """Return what was kept back: the text has ended, and it was no beginning."""
        rest, self._kept = self._kept, ""
        return rest

    def _unclear(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that some string begins with."""
        for n in range(min(len(text), self._longest - 1), 0, -1):
            end = text[-n:]
            if any(stop.startswith(end) for stop in self._stops):
                return n
        return 0
