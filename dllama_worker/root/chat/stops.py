"""Where a reply ends: at an end token, or where its text is spelled out (C++ ``EosDetector``)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from dllama_worker.tokenizer.interface import Vocabulary

__all__ = ["EosDetector", "EosState"]


class EosState(IntEnum):
    """What the text since the last reset is (C++ ``EosDetectorType``)."""

    #: The beginning of an end: keep it back.
    MAYBE_EOS = 0
    #: The end; what stood before it is :meth:`EosDetector.delta`.
    EOS = 1
    #: Text: show it, and reset.
    NOT_EOS = 2


class EosDetector:
    """Watches a reply for its end, piece by piece.

    ``stops`` are end tokens and their texts. Up to ``padding_left`` bytes may stand before the text of an
    end, and ``padding_right`` after it, within the pieces that spell it.
    """

    def __init__(self, stops: Sequence[tuple[int, bytes]], padding_left: int, padding_right: int) -> None:
        self._tokens = frozenset(token for token, _ in stops)
        self._texts = tuple(text for _, text in stops)
        self._left = padding_left
        self._right = padding_right
        self._buffer = b""
        self._eos_at: int | None = None

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> EosDetector:
        """Watch for a tokenizer's end tokens, with as much padding as their longest text, as C++ chat does."""
        stops = [(token, vocabulary.pieces[token].partition(b"\0")[0]) for token in vocabulary.eos_ids]
        padding = max((len(text) for _, text in stops), default=0)
        return cls(stops, padding, padding)

    def append(self, token: int, piece: bytes | None) -> EosState:
        """Add a token and the text that the decoder gave for it."""
        self._buffer += piece or b""
        if token in self._tokens:
            self._eos_at = len(self._buffer)
            return EosState.EOS
        self._eos_at = None
        size = len(self._buffer)
        for text in self._texts:
            if size > self._left + len(text) + self._right:
                continue
            for start in range(min(self._left, size - 1) + 1):
                n = size - start
                if n > len(text) + self._right:
                    continue
                n = min(n, len(text))
                if self._buffer[start : start + n] == text[:n]:
                    if n < len(text):
                        return EosState.MAYBE_EOS
                    self._eos_at = start
                    return EosState.EOS
        return EosState.NOT_EOS

    def delta(self) -> bytes | None:
        """Return the text since the last reset, up to the end where it was found; None where there is none."""
        return self._buffer[: self._eos_at] or None

    def reset(self) -> None:
        """Forget the text: it was shown, or a new reply begins."""
        self._buffer = b""
        self._eos_at = None
