"""Text to tokens, exactly as C++ ``Tokenizer::encode`` (``tokenizer.cpp``).

Special tokens are cut out first; the rest is split into the shortest regular tokens, usually bytes; then the
adjacent pair whose union has the best score is merged, the leftmost of equals, until no union is a token. C++
looks at all pairs for every merge; here a heap holds them, so a text of n bytes takes O(n log n).
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Collection, Iterator

from dllama_proto.tokenizer_file import TokenizerFile
from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.chat_templates import ChatTemplates
from dllama_worker.tokenizer.interface import Tokenizer, Vocabulary

__all__ = ["GreedyTokenizer", "text_bytes", "vocabulary_of"]

#: C++ merges only what scores better than this.
_WORST_SCORE = -1e10


class GreedyTokenizer(Tokenizer):
    """The vocabulary of a .t file, used as the C++ program uses it: no rule parts a text before it is merged."""

    def __init__(self, file: TokenizerFile, special: Collection[int] | None = None) -> None:
        """Take a vocabulary; without ``special``, those from the beginning token on are special, as in C++."""
        self.vocabulary = vocabulary_of(file)
        self._file = file
        # In C++ pieces are strings that end at their first NUL.
        self._texts = tuple(piece.partition(b"\0")[0] for piece in file.pieces)
        if special is None:
            special = range(file.bos_id, file.vocab_size)
            self._regular = _regular_ids(self._texts[: file.bos_id])
        else:
            self._regular = {
                text: token for token, text in enumerate(self._texts) if text and token not in special
            }
        self._special_ids = {file.pieces[token]: token for token in sorted(special, reverse=True)}
        self._special = _special_pattern([file.pieces[token] for token in sorted(special)])
        self._unions: dict[tuple[int, int], int] = {}

    def encode(self, text: str | bytes, *, is_start: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text.

        At the start of a context the beginning token comes first where the tokenizer has it so. With
        ``special``, special tokens that are spelled out in the text count as such. Bytes that are no UTF-8
        are tokens as well. Raises UsageError where the vocabulary lacks a byte, or the text has a NUL.
        """
        return self.encode_with_leftover(text, is_start=is_start, special=special)[0]

    def regular_token(self, text: bytes) -> int | None:
        """Return the token that is a text, None where there is none."""
        return self._regular.get(text)

    def special_tokens(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Yield where special tokens are spelled out in a text: start, stop, token."""
        for match in self._special.finditer(data) if self._special else ():
            yield match.start(), match.end(), self._special_ids[match.group()]

    def cpp_leftover(self, text: str | bytes) -> int | None:
        """Return what C++ inference evaluates in place of the last token of a prompt."""
        return self.encode_with_leftover(text)[1]

    def encode_with_leftover(
        self, text: str | bytes, *, is_start: bool = True, special: bool = True
    ) -> tuple[list[int], int]:
        """Return the tokens, and the number that the C++ program has in its array behind them.

        That is what was the last token before the last merge, or 0 where nothing merged: C++ inference
        evaluates it after the prompt in place of the prompt's last token.
        """
        data = text_bytes(text)
        tokens = [self._file.bos_id] if is_start and self._file.add_bos else []
        pending = b""
        at = 0
        for start, stop, token in self.special_tokens(data) if special else ():
            pending = self._split(data, at, start, pending, tokens)
            tokens.append(token)
            at = stop
        pending = self._split(data, at, len(data), pending, tokens)
        if pending:
            raise _no_token(pending)
        return self._merge_all(tokens)

    def merge(self, tokens: list[int]) -> list[int]:
        """Merge the best pair of tokens until none is left."""
        return self._merge_all(tokens)[0]

    def _split(self, data: bytes, start: int, stop: int, pending: bytes, tokens: list[int]) -> bytes:
        """Append the shortest regular tokens of data[start:stop]; return the beginning of an unfinished one."""
        for at in range(start, stop):
            pending += data[at : at + 1]
            token = self._regular.get(pending)
            if token is not None:
                tokens.append(token)
                pending = b""
            elif len(pending) > self._file.max_token_length:
                raise _no_token(pending)
        return pending

    def _merge_all(self, tokens: list[int]) -> tuple[list[int], int]:
        """Merge the best pair until none is left; return what remains, and the last token before the last.

        Tokens are a linked list over their first positions; entries of the heap are a pair's score and
        place, and what it was when it was pushed: it may have changed since.
        """
        n = len(tokens)
        after = list(range(1, n + 1))
        before = list(range(-1, n - 1))
        end, leftover = n - 1, 0
        heap: list[tuple[float, int, int, int, int]] = []

        def push(left: int) -> None:
            right = after[left]
            if right < n:
                union = self._union(tokens[left], tokens[right])
                if union >= 0:
                    entry = (-self._file.scores[union], left, tokens[left], tokens[right], union)
                    heapq.heappush(heap, entry)

        for left in range(n - 1):
            push(left)
        while heap:
            _, left, left_token, right_token, union = heapq.heappop(heap)
            right = after[left]
            if tokens[left] != left_token or right >= n or tokens[right] != right_token:
                continue
            leftover = tokens[end]
            if right == end:
                end = left
            tokens[left] = union
            tokens[right] = -1
            after[left] = after[right]
            if after[left] < n:
                before[after[left]] = left
            push(left)
            if before[left] >= 0:
                push(before[left])
        return [token for token in tokens if token >= 0], leftover

    def _union(self, left: int, right: int) -> int:
        """Return the regular token that two tokens' texts make together and that may be merged, or -1."""
        key = left, right
        union = self._unions.get(key)
        if union is None:
            union = self._regular.get(self._texts[left] + self._texts[right], -1)
            if union >= 0 and not self._file.scores[union] > _WORST_SCORE:
                union = -1
            self._unions[key] = union
        return union


def vocabulary_of(file: TokenizerFile) -> Vocabulary:
    """Return what a .t file says of its vocabulary."""
    template = file.chat_template.decode("utf-8", "surrogateescape")
    special = {"bos_token": file.bos_id, "eos_token": file.eos_ids[0] if file.eos_ids else None}
    texts = {
        role: file.pieces[token].decode("utf-8", "surrogateescape")
        for role, token in special.items()
        if token is not None
    }
    templates = ChatTemplates.of(template, texts)
    return Vocabulary(file.pieces, file.bos_id, file.add_bos, file.eos_ids, templates)


def text_bytes(text: str | bytes) -> bytes:
    """Return a text's bytes. Raises UsageError where it has none, or a NUL among them."""
    try:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"the text cannot be encoded: {error}") from error
    if b"\0" in data:
        raise UsageError(f"the text has a NUL at byte {data.index(0)}, which no token stands for")
    return data


def _no_token(data: bytes) -> UsageError:
    return UsageError(f"the tokenizer has no token for the bytes {data[:16].hex(' ')} of the text")


def _regular_ids(texts: tuple[bytes, ...]) -> dict[bytes, int]:
    """Return the token of each text; of several with the same text, the one that C++ finds.

    That is whichever the C library's ``bsearch`` meets first among all texts in order.
    """
    ids = {text: token for token, text in enumerate(texts)}
    if len(ids) < len(texts):
        order = sorted(range(len(texts)), key=texts.__getitem__)
        for text in {texts[a] for a, b in itertools.pairwise(order) if texts[a] == texts[b]}:
            ids[text] = order[_bsearch(texts, order, text)]
    return ids


def _bsearch(texts: tuple[bytes, ...], order: list[int], text: bytes) -> int:
    low, high = 0, len(order)
    while True:
        middle = (low + high) // 2
        found = texts[order[middle]]
        if found == text:
            return middle
        if text < found:
            high = middle
        else:
            low = middle + 1


def _special_pattern(special: list[bytes]) -> re.Pattern[bytes] | None:
    """Return what finds special tokens; of several at one place the first in the vocabulary, as in C++."""
    pieces = [piece for piece in special if b"\0" not in piece]
    return re.compile(b"|".join(map(re.escape, pieces))) if pieces else None
