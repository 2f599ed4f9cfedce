"""How preparing a node for its config is cut short: something is looked at between two ops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["Check", "checked", "unhurried"]

_T = TypeVar("_T")

#: Called between two ops; raises what ends the work.
Check = Callable[[], None]


def unhurried() -> None:
    """End nothing: whoever prepares has all the time."""


def checked(items: Iterable[_T], check: Check) -> Iterator[_T]:
    """Yield the items, each after a call of ``check``."""
    for item in items:
        check()
        yield item
