"""The numbers in slices: what a row looks like, and which tokens its logits favour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dllama_proto.dissect.events import SliceEvent
from dllama_proto.dissect.session import Session
from dllama_proto.enums import FloatType
from dllama_proto.floats import bytes_to_values
from dllama_proto.names import Pipe
from dllama_proto.tokenizer_file import TokenizerFile

__all__ = ["LOGITS_PIPE", "Token", "Values", "slice_values", "values_of"]

#: The pipe of logits.
LOGITS_PIPE = Pipe.LG.name

_N_TOP = 5


@dataclass(frozen=True, slots=True)
class Token:
    """A token that logits favour; ``text`` is None without a tokenizer."""

    index: int
    logit: float
    text: str | None


@dataclass(frozen=True, slots=True)
class Values:
    """What the numbers of a slice are like; NaNs are counted and left out of the rest.

    ``top`` are the best tokens among those of this slice, for slices of logits: a node sends its share of the
    vocabulary, and the root's own share is never on the wire.
    """

    n: int
    n_nan: int
    minimum: float
    maximum: float
    mean: float
    top: tuple[Token, ...]


def slice_values(event: SliceEvent, float_type: FloatType) -> npt.NDArray[np.float32]:
    """Return the numbers of a slice that was captured whole, shape (n,); of any other, none."""
    if event.missing or len(event.raw) < event.transfer.size:
        return np.empty(0, np.float32)
    return bytes_to_values(float_type, event.raw)


def values_of(event: SliceEvent, session: Session, tokenizer: TokenizerFile | None = None) -> Values | None:
    """Return what the numbers of a slice are like; None where they were not captured whole."""
    if session.net is None:
        return None
    size = session.net.pipes[event.transfer.pipe_index].size
    values = slice_values(event, size.float_type)
    if not values.size:
        return None
    real = values[~np.isnan(values)].astype(np.float64)
    nothing = float("nan")
    return Values(
        n=values.size,
        n_nan=values.size - real.size,
        minimum=float(real.min(initial=np.inf)) if real.size else nothing,
        maximum=float(real.max(initial=-np.inf)) if real.size else nothing,
        mean=float(real.mean()) if real.size else nothing,
        top=_top(event, values, tokenizer) if event.pipe == LOGITS_PIPE else (),
    )


def _top(
    event: SliceEvent, values: npt.NDArray[np.float32], tokenizer: TokenizerFile | None
) -> tuple[Token, ...]:
    first = event.transfer.start // (event.transfer.size // values.size) if values.size else 0
    order = np.argsort(np.where(np.isnan(values), -np.inf, values), kind="stable")[::-1][:_N_TOP]
    return tuple(Token(first + int(i), float(values[i]), _piece(tokenizer, first + int(i))) for i in order)


def _piece(tokenizer: TokenizerFile | None, index: int) -> str | None:
    if tokenizer is None or index >= len(tokenizer.pieces):
        return None
    return tokenizer.pieces[index].decode("utf-8", "replace")
