"""Tokens by the library ``tokenizers``, which a model's own file describes or a vocabulary is built with."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.greedy import text_bytes
from dllama_worker.tokenizer.interface import Tokenizer, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LibraryEncoder

__all__ = ["LibraryTokenizer", "has_library", "import_library"]


class LibraryTokenizer(Tokenizer):
    """A vocabulary, and the library's object that encodes with it."""

    def __init__(self, vocabulary: Vocabulary, encoder: LibraryEncoder) -> None:
        self.vocabulary = vocabulary
        self._encoder = encoder

    def encode(self, text: str | bytes, *, is_start: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text; bytes that are no UTF-8 count as U+FFFD. Raises UsageError."""
        readable = text_bytes(text).decode("utf-8", "replace")
        self._encoder.encode_special_tokens = not special
        tokens: list[int] = self._encoder.encode(readable, add_special_tokens=False).ids
        found = self.vocabulary
        if is_start and found.add_bos and found.bos_id is not None and tokens[:1] != [found.bos_id]:
            return [found.bos_id, *tokens]
        return tokens


def has_library() -> bool:
    """Tell whether the module ``tokenizers`` is installed, without importing it."""
    return find_spec("tokenizers") is not None


def import_library() -> Any:
    """Return the module ``tokenizers``. Raises UsageError saying how to install it."""
    try:
        import tokenizers
    except ImportError as error:
        raise UsageError(
            "the tokens of this model need the package tokenizers: pip install 'dllama-worker[models]'"
        ) from error
    return tokenizers
