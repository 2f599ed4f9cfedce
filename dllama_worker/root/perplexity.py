"""Perplexity of texts of any length, by windows that overlap.

A model sees at most its context, so a longer text is read in windows of that many tokens, ``stride`` further on
each time. In each window those tokens count that none before it has counted, and the others are what they are
predicted from: every token but the text's first counts exactly once, with at least ``context - stride`` tokens
before it. This is the strided perplexity of Hugging Face (transformers, "Perplexity of fixed-length models"). A
text that fits into the context is one window, which is what C++ ``perplexity`` (``dllama.cpp``) does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dllama_worker.errors import UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.inference import Inference

__all__ = ["Score", "Window", "make_windows", "measure_text"]

#: As C++: one impossible token must not make the whole infinite.
_MIN_LOG_PROBABILITY = math.log(1e-30)


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens ``start`` to ``stop`` of a text are evaluated; those from ``counted`` on count."""

    start: int
    stop: int
    counted: int


@dataclass(slots=True)
class Score:
    """The sum of the natural logarithms of the probabilities of ``n_tokens`` tokens, ``n_bytes`` bytes of text."""

    log_probability: float = 0.0
    n_tokens: int = 0
    n_bytes: int = 0

    @property
    def perplexity(self) -> float:
        """Exp of the mean negative log-probability; NaN where no token counts."""
        return math.exp(-self.log_probability / self.n_tokens) if self.n_tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """How many bits a byte of the text takes with this model; it compares models with other tokenizers."""
        return -self.log_probability / math.log(2) / self.n_bytes if self.n_bytes else math.nan


def make_windows(n_tokens: int, context: int, stride: int) -> list[Window]:
    """Return the windows of a text. Raises UsageError for a text without a token to predict, or a wrong stride."""
    if n_tokens < 2:
        raise UsageError(f"perplexity needs a text of 2 tokens or more, this one has {n_tokens}")
    if not 1 <= stride < context:
        raise UsageError(
            f"--stride {stride}: expected 1 to {context - 1}, less than the context of {context} tokens"
        )
    windows = [Window(0, min(context, n_tokens), 1)]
    while (done := windows[-1].stop) < n_tokens:
        start = windows[-1].start + stride
        windows.append(Window(start, min(start + context, n_tokens), done))
    return windows


def measure_text(
    inference: Inference,
    tokens: Sequence[int],
    windows: Sequence[Window],
    sizes: Callable[[int], int],
    times: ForwardTimes,
    score: Score,
) -> Iterator[int]:
    """Evaluate windows and add to ``score``; yields after each forward how many tokens it had.

    ``sizes`` gives the bytes of a token's text. Raises what a forward does.
    """
    for window in windows:
        inference.position = 0
        for start in range(window.start, window.stop - 1, inference.n_batches):
            stop = min(start + inference.n_batches, window.stop - 1)
            logits = inference.forward(tokens[start:stop], times)
            # The row of a token predicts the one after it.
            first = max(start, window.counted - 1)
            if first < stop:
                targets = tokens[first + 1 : stop + 1]
                score.log_probability += _log_probability(logits[first - start :], targets)
                score.n_tokens += len(targets)
                score.n_bytes += sum(map(sizes, targets))
            yield stop - start


def _log_probability(logits: npt.NDArray[np.float32], targets: Sequence[int]) -> float:
    """Return the sum of the log-probabilities of ``targets``, one by each row of ``logits``."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    chosen = rows[np.arange(len(targets)), targets] - np.log(np.exp(rows).sum(axis=1))
    return float(np.maximum(chosen, _MIN_LOG_PROBABILITY).sum())
