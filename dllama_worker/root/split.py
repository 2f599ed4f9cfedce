"""How people say who gets how much: ``--split`` and ``--root-share``."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

__all__ = ["EVEN", "Split", "parse_split"]


@dataclass(frozen=True, slots=True)
class Split:
    """What was asked for: the ``weights`` of all nodes, the root's first, or None for an even split.

    In an even one ``root_share`` is the root's weight beside 1 for every worker.
    """

    weights: tuple[float, ...] | None = None
    root_share: float = 1.0

    @property
    def is_even(self) -> bool:
        """Whether every node is to have as much as every other."""
        return self.weights is None and self.root_share == 1

    def __str__(self) -> str:
        if self.weights is not None:
            return ":".join(f"{weight:g}" for weight in self.weights)
        return "even" if self.is_even else f"even, the root with a share of {self.root_share:g}"


EVEN = Split()


def parse_split(text: str) -> Split:
    """Read ``even`` or ``W:W:…``. Raises ValueError saying what is wrong."""
    if text == "even":
        return EVEN
    try:
        weights = tuple(float(weight) for weight in text.split(":"))
    except ValueError:
        weights = ()
    if not weights or not all(isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"expected even, or a number for each node like 3:1, the root first; got {text!r}")
    return Split(weights)
