"""How people say who gets how much, and what nodes have: ``--split``, ``--root-share``, ``--memory``."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

from dllama_worker.arguments import parse_size
from dllama_worker.errors import UsageError

__all__ = ["EVEN", "Split", "for_each_node", "parse_memory", "parse_numbers", "parse_split"]

_N = TypeVar("_N")


@dataclass(frozen=True, slots=True)
class Split:
    """What was asked for: the ``weights`` of all nodes, the root's first, or None for an even split.

    In an even one ``root_share`` is the root's weight beside 1 for every worker. With ``auto`` speed and
    memory decide, and the root's speed is counted ``root_share`` times.
    """

    weights: tuple[float, ...] | None = None
    root_share: float = 1.0
    auto: bool = False

    @property
    def is_even(self) -> bool:
        """Whether every node is to have as much as every other."""
        return self.weights is None and self.root_share == 1 and not self.auto

    def __str__(self) -> str:
        if self.weights is not None:
            return ":".join(f"{weight:g}" for weight in self.weights)
        name = "auto" if self.auto else "even"
        return name if self.root_share == 1 else f"{name}, the root with a share of {self.root_share:g}"


EVEN = Split()


def parse_split(text: str) -> Split:
    """Read ``even``, ``auto`` or ``W:W:…``. Raises ValueError saying what is wrong."""
    if text in ("even", "auto"):
        return Split(auto=text == "auto")
    try:
        return Split(parse_numbers(text))
    except ValueError:
        raise ValueError(
            f"expected even, auto, or a number for each node like 3:1, the root first; got {text!r}"
        ) from None


def parse_numbers(text: str) -> tuple[float, ...]:
    """Read numbers of 0 or more with colons between them. Raises ValueError."""
    try:
        numbers = tuple(float(number) for number in text.split(":"))
    except ValueError:
        numbers = ()
    if not numbers or not all(isfinite(number) and number >= 0 for number in numbers):
        raise ValueError(f"expected a number for each node like 3:1, the root first; got {text!r}")
    return numbers


def parse_memory(text: str) -> tuple[int, ...]:
    """Read bytes a node, as ``8G:4G:500M``. Raises ValueError saying what is wrong."""
    try:
        return tuple(parse_size(part) for part in text.split(":"))
    except ValueError:
        raise ValueError(
            f"expected bytes for each node like 8G:500M, the root first; got {text!r}"
        ) from None


def for_each_node(name: str, values: tuple[_N, ...], n_nodes: int) -> tuple[_N, ...]:
    """Return one value a node, where there are as many or one for all.

    Raises UsageError for another number of them; ``name`` is the flag that they came with.
    """
    if len(values) not in (1, n_nodes):
        raise UsageError(f"{name} has {len(values)} values, expected 1 or {n_nodes}, one for each node")
    return values * n_nodes if len(values) == 1 else values
