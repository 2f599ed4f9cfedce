"""Tokens to text, piece by piece, exactly as C++ ``Tokenizer::decode`` and ``detokUtf8`` (``tokenizer.cpp``).

Tokens may hold any bytes, so a character can be spread over several: what is not yet a whole character is
kept for the next token, and what can never become one is replaced by U+FFFD.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["TokenDecoder", "complete_utf8"]

_REPLACEMENT = "\ufffd".encode()


class TokenDecoder:
    """Turns a stream of tokens into bytes of valid UTF-8. Made by ``Tokenizer.decoder``."""

    def __init__(self, pieces: Sequence[bytes], bos_id: int | None, eos_ids: Sequence[int]) -> None:
        self._pieces = pieces
        self._bos_id = bos_id
        self._eos_ids = frozenset(eos_ids)
        self._pending = b""
        # C++ has a buffer for this many bytes and ends the process when more come.
        self._max_pending = max(2 * max(map(len, pieces), default=0), 8) + 1

    def reset(self) -> None:
        """Forget an unfinished character: a new text begins."""
        self._pending = b""

    def decode(self, token: int) -> bytes | None:
        """Return the characters that the token completes, or None where there are none yet.

        Beginning and end tokens have no text; an end token gives the unfinished bytes before it, as they
        are. Raises ValueError for a token that is not in the vocabulary.
        """
        if not 0 <= token < len(self._pieces):
            raise ValueError(f"token {token} is not one of {len(self._pieces)}")
        if token == self._bos_id:
            return None
        if token in self._eos_ids:
            return self._pending or None
        text, self._pending = complete_utf8(self._pending + self._pieces[token])
        if len(self._pending) > self._max_pending:
            text, self._pending = text + _REPLACEMENT, b""
        return text or None


def complete_utf8(data: bytes) -> tuple[bytes, bytes]:
    """Split bytes into whole characters and an unfinished rest; like C++, end at a NUL.

    A broken sequence becomes one U+FFFD as soon as a whole character follows it; until then it is rest.
    Only the structure of sequences counts: overlong forms and surrogates pass.
    """
    data = data.partition(b"\0")[0]
    text = bytearray()
    whole, taken = 0, 0  # how much of text and of data is final
    missing = 0  # continuation bytes still to come
    at = 0
    while at < len(data):
        byte = data[at]
        if missing:
            fits = byte & 0xC0 == 0x80
            expected = missing - 1
        else:
            fits = byte <= 0x7F or 0xC0 <= byte <= 0xF7
            expected = 0 if byte <= 0x7F else 1 if byte <= 0xDF else 2 if byte <= 0xEF else 3
        if fits:
            text.append(byte)
            at += 1
            missing = expected
            if not missing:
                whole, taken = len(text), at
        else:
            # A byte that cannot follow is looked at again as a first one; one that cannot begin is dropped.
            if not missing:
                at += 1
            missing = 0
            text[whole:] = _REPLACEMENT
    return bytes(text[:whole]), data[taken:]
