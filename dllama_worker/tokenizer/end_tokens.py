"""Which tokens end a text: those that a file names, and those that are known by their own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["find_end_tokens"]

#: End tokens of turns and of texts, as models of many makers call them.
_NAMES = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|eot|>",
    "<|end_of_role|>",
    "<|assistant_end|>",
    "<turn|>",
    "<end_of_utterance>",
    "<seed:eos>",
    "[EOT]",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "</s>",
    "<EOT>",
    "_<EOT>",
)

#: Ends of texts only, which stand in the middle of a conversation where a turn has an end of its own.
_MAX_END_TOKENS = 64


def find_end_tokens(named: Iterable[int], special: Mapping[str, int]) -> tuple[int, ...]:
    """Return the tokens that end a text, those that the file names first.

    ``special`` are a vocabulary's special tokens by their texts.
    """
    known = [special[name] for name in _NAMES if name in special]
    return tuple(dict.fromkeys([*named, *known]))[:_MAX_END_TOKENS]
