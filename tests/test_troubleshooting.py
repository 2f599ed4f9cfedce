"""What the page for those in trouble quotes is what the programs print: people search for a message."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

#: Where a message has a value.
_HOLE = "\0"

#: What the system says, not we.
_WORDS_OF_THE_SYSTEM = {
    os.strerror(errno.ECONNREFUSED),
    os.strerror(errno.EHOSTUNREACH),
    "Name or service not known",
    "timed out",
}


def _texts() -> Iterator[str]:
    """Yield every text in the sources, with a hole for each value."""
    for package in ("dllama_proto", "dllama_ops", "dllama_worker"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else _HOLE for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def _quotes() -> list[str]:
    """Return the quoted parts of the first column of each table, cut where a value stands."""
    page = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quotes = []
    for row in re.findall(r"^\| (.*?) \|", page, re.MULTILINE):
        for quote in re.findall(r"`([^`]+)`", row):
            parts = re.split(r"\(?…\)?|\d[\d.,]*(?: [kMG]?B\b)?|: (?=[A-Z])", quote)
            quotes += [text for part in parts if (text := part.strip(" ,:"))]
    return quotes


SOURCES = "\n".join(_texts())


@pytest.mark.parametrize("quote", sorted(set(_quotes())))
def test_what_is_quoted_is_printed(quote: str) -> None:
    first, _, rest = quote.partition(": ")
    assert (
        quote in _WORDS_OF_THE_SYSTEM
        or quote in SOURCES
        or (first in SOURCES and (rest in SOURCES or rest in _WORDS_OF_THE_SYSTEM))
    ), f"no program prints {quote!r}"
