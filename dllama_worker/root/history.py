"""What a cluster has evaluated, batch by batch: what lost workers must be told again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["History"]


class History:
    """Batches of tokens by position, one behind the other."""

    def __init__(self) -> None:
        self._batches: list[tuple[int, tuple[int, ...]]] = []

    def add(self, position: int, tokens: Sequence[int]) -> None:
        """Note that tokens were evaluated at ``position`` and on, where the last batch ended or was cut."""
        self._batches.append((position, tuple(tokens)))

    def cut(self, position: int) -> None:
        """Forget what was at ``position`` and on: a conversation goes on from there."""
        while self._batches and self._batches[-1][0] >= position:
            self._batches.pop()
        if self._batches:
            start, tokens = self._batches[-1]
            self._batches[-1] = start, tokens[: position - start]

    def batches(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield position and tokens of each batch, in order."""
        yield from self._batches
