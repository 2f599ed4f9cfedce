"""Perplexity in windows: every token counts once, with what stands before it in its window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_worker.errors import UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.perplexity import Score, Window, make_windows, measure_text

_VOCAB_SIZE = 16


class _Model:
    """Predicts from the token and its position; keeps what it was given."""

    n_batches = 3

    def __init__(self) -> None:
        self.position = 0
        self.read: list[tuple[int, int]] = []

    def forward(self, tokens: Sequence[int], times: ForwardTimes) -> npt.NDArray[np.float32]:
        self.read += [(self.position + i, token) for i, token in enumerate(tokens)]
        logits = np.array(
            [_logits(self.position + i, token) for i, token in enumerate(tokens)], dtype=np.float32
        )
        self.position += len(tokens)
        return logits


def _logits(position: int, token: int) -> npt.NDArray[np.float64]:
    return np.cos(np.arange(_VOCAB_SIZE) * (token + 1) + position)


def _log_probability(position: int, token: int, target: int) -> float:
    logits = _logits(position, token).astype(np.float32).astype(np.float64)
    return float(logits[target] - np.log(np.exp(logits).sum()))


def _measure(tokens: list[int], windows: list[Window]) -> Score:
    score = Score()
    model = _Model()
    n = sum(measure_text(model, tokens, windows, lambda token: token, ForwardTimes(), score))  # type: ignore[arg-type]
    assert n == len(model.read) == sum(window.stop - 1 - window.start for window in windows)
    return score


@given(st.data())
def test_every_token_but_the_first_counts_once(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 200))
    context = data.draw(st.integers(2, 50))
    stride = data.draw(st.integers(1, context - 1))
    windows = make_windows(n, context, stride)
    counted = [i for window in windows for i in range(window.counted, window.stop)]
    assert counted == list(range(1, n))
    for window in windows:
        assert window.stop - window.start <= context
        # What counts has enough before it, but at the text's beginning.
        assert window.counted - window.start >= min(window.counted, context - stride)


@given(
    st.lists(st.integers(0, _VOCAB_SIZE - 1), min_size=2, max_size=40),
    st.integers(2, 12),
    st.integers(1, 11),
)
def test_the_score_is_the_sum_over_the_windows(tokens: list[int], context: int, stride: int) -> None:
    windows = make_windows(len(tokens), context, min(stride, context - 1))
    score = _measure(tokens, windows)
    expected = [
        _log_probability(i - 1 - window.start, tokens[i - 1], tokens[i])
        for window in windows
        for i in range(window.counted, window.stop)
    ]
    assert score.n_tokens == len(expected) == len(tokens) - 1
    assert score.log_probability == pytest.approx(sum(expected))
    assert score.n_bytes == sum(tokens[1:])
    assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)))
    if score.n_bytes:
        assert score.bits_per_byte == pytest.approx(-sum(expected) / math.log(2) / sum(tokens[1:]))


def test_a_text_that_fits_is_one_window() -> None:
    assert make_windows(8, 8, 4) == [Window(0, 8, 1)]
    assert make_windows(9, 8, 4) == [Window(0, 8, 1), Window(4, 9, 8)]


def test_nothing_counted_is_no_number() -> None:
    assert math.isnan(Score().perplexity)
    assert math.isnan(Score().bits_per_byte)


@pytest.mark.parametrize(
    ("n", "context", "stride", "reason"),
    [
        (1, 8, 4, "a text of 2 tokens or more, this one has 1"),
        (20, 8, 8, "--stride 8: expected 1 to 7, less than the context of 8 tokens"),
        (20, 8, 0, "--stride 0"),
    ],
)
def test_what_cannot_be_measured(n: int, context: int, stride: int, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        make_windows(n, context, stride)
