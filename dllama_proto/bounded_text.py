"""Text from others, kept short: no message is longer than a person reads, whatever a peer or a file holds.

Every text that is built from names and values of others goes through here where it is built; error types and log
lines cut what they are given once more, so that nothing slips by.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ERROR_LENGTH", "FirstFew", "NAME_LENGTH", "N_SHOWN", "first_few", "quoted", "shortened"]

#: Letters of a name that are shown. Names of ops, tensors and hosts of real models and clusters are shorter.
NAME_LENGTH = 80

#: Letters of one text in a list: a fault, a tensor with what is wrong with it.
ITEM_LENGTH = 400

#: Letters of a whole error, as a person reads it in one line.
ERROR_LENGTH = 2_000

#: How many texts of one kind a message quotes: more are only counted.
N_SHOWN = 5


def shortened(text: str, length: int) -> str:
    """Return the text, or where it has more than ``length`` letters its beginning and ``…``."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def quoted(name: str) -> str:
    """Return a name as messages quote it: between quotes, escaped, cut off where it is too long to be one."""
    return shortened(repr(shortened(name, NAME_LENGTH)), 2 * NAME_LENGTH)


class FirstFew:
    """Texts of one kind, such as faults: the first of them are kept, each cut to a length, the others counted."""

    def __init__(self, texts: Iterable[str] = (), *, n_shown: int = N_SHOWN) -> None:
        self._n_shown = n_shown
        self._shown: list[str] = []
        self._n = 0
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        """Return how many there are, kept or not."""
        return self._n

    @property
    def shown(self) -> tuple[str, ...]:
        """Those that are kept."""
        return tuple(self._shown)

    def add(self, text: str) -> None:
        """Count a text, and keep it if it is among the first."""
        self._n += 1
        if len(self._shown) < self._n_shown:
            self._shown.append(shortened(text, ITEM_LENGTH))

    def joined(self, separator: str = ", ") -> str:
        """Return them as one text, which says how many are left out."""
        n_more = self._n - len(self._shown)
        return separator.join([*self._shown, *([f"and {n_more:,} more"] if n_more else [])])


def first_few(texts: Iterable[str], separator: str = ", ", *, n_shown: int = N_SHOWN) -> str:
    """Return the first texts as one, and how many are left out."""
    return FirstFew(texts, n_shown=n_shown).joined(separator)
