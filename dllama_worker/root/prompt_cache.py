"""Which part of a prompt is still in the KV caches of the nodes, so that it need not be evaluated again."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PromptCache"]


class PromptCache:
    """The last prompt of a session.

    Only whole batches are kept, those that the next prompt would be evaluated in as well. So the rows in the
    caches are those that would be computed anew, bit for bit: reuse never changes a text.
    """

    def __init__(self) -> None:
        self._prompt: tuple[int, ...] = ()

    def begin(self, prompt: Sequence[int], n_batches: int) -> int:
        """Return how many tokens of a prompt need no evaluation; what stood behind them counts as overwritten.

        The last token is always evaluated, since the text goes on from its logits.
        """
        n_common = 0
        for ours, theirs in zip(self._prompt, prompt, strict=False):
            if ours != theirs:
                break
            n_common += 1
        n_reused = min(n_common, len(prompt) - 1) // n_batches * n_batches
        self._prompt = self._prompt[:n_reused]
        return n_reused

    def evaluated(self, prompt: Sequence[int]) -> None:
        """Note that a whole prompt has been evaluated."""
        self._prompt = tuple(prompt)
