"""What a tokenizer is to those who use it, whatever it was read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from dllama_worker.tokenizer.chat_templates import ChatTemplates
from dllama_worker.tokenizer.decoder import TokenDecoder

__all__ = ["Tokenizer", "Vocabulary"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model, and how texts begin and end.

    ``pieces`` are each token's bytes, by its id. Texts begin with ``bos_id`` where ``add_bos`` says so; None is a
    model without. ``eos_ids`` are all end tokens; ``templates`` are the chat templates that come with them.
    """

    pieces: tuple[bytes, ...]
    bos_id: int | None
    add_bos: bool
    eos_ids: tuple[int, ...]
    templates: ChatTemplates = field(default_factory=ChatTemplates)


class Tokenizer(ABC):
    """Turns texts into a model's tokens; :meth:`decoder` makes what turns tokens back into text."""

    vocabulary: Vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.vocabulary.pieces)

    def decoder(self) -> TokenDecoder:
        """Return a new decoder, at the beginning of a text."""
        found = self.vocabulary
        return TokenDecoder(found.pieces, found.bos_id, found.eos_ids)

    @abstractmethod
    def encode(self, text: str | bytes, *, is_start: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text.

        At the start of a context the beginning token comes first where the model has it so, but not twice. With
        ``special``, special tokens that are spelled out in the text count as such. Raises UsageError where the
        text can't be encoded.
        """

    def cpp_leftover(self, text: str | bytes) -> int | None:
        """Return what the C++ program evaluates in place of a prompt's last token, None where it isn't known."""
        return None
