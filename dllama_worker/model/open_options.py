"""How a model is to be opened, whatever it is stored as."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["OpenOptions", "WeightChoice"]


class WeightChoice(StrEnum):
    """What people ask for: one of the nodes' types, or what fits the file."""

    AUTO = "auto"
    Q40 = "q40"
    F32 = "f32"


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """``max_seq_len`` cuts the context, 0 leaves it; ``weights`` and ``logits`` say what matrices are loaded as.

    A .m file has its own types: there both are not looked at.
    """

    max_seq_len: int = 0
    weights: WeightChoice = WeightChoice.AUTO
    logits: WeightChoice = WeightChoice.AUTO
