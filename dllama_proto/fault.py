"""One thing that is wrong with a record."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Fault"]


class Fault(NamedTuple):
    """What is wrong with a field: ``path`` from the message down, what should be there and what is."""

    path: str
    expected: str
    got: str
    hint: str = ""
