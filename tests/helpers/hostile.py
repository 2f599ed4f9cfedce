"""Texts that somebody hostile would choose as names, and what must hold of every output that shows one."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["FORGED", "HOSTILE", "HOSTILE_FILE_NAME", "check_json", "check_lines", "strings_in"]

#: How a line would begin that one of these texts has forged.
FORGED = "fakeline"

#: Line breaks, sequences that steer a terminal (also of one byte), marks that turn the writing direction, a byte
#: that is no UTF-8, rich's markup, the end of a script.
HOSTILE = (
    f"a\n{FORGED}",
    f"a\r\n{FORGED}\u2028{FORGED}\x85{FORGED}",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b2J",
    "\u202egnirts\u2066",
    "byte \udcff and half \ud83d",
    "[red]x[/red]",
    "[/]",
    "</script><script>alert(1)</script>",
    "<!--",
    "\0\x7f",
    "%s {0}",
)

#: All of it as the name of a file, as far as a name can be that long and have such characters.
HOSTILE_FILE_NAME = f"a\n{FORGED}\x1b[31m\u202e\udcff[red][slash] {{0}} %s"


def check_lines(text: str) -> None:
    """Check that a text shown to a person is made of printable lines, none of them forged."""
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith(FORGED)
    text.encode("utf-8")


def check_json(text: str) -> list[Any]:
    """Check that each line is JSON that can be sent, printed and read anywhere; return the values."""
    check_lines(text)
    values = [json.loads(line) for line in text.encode("utf-8").splitlines()]
    for found in strings_in(values):
        found.encode("utf-8")  # raises for a lone surrogate
    return values


def strings_in(value: Any) -> list[str]:
    """Every string of a JSON value, keys too."""
    if isinstance(value, dict):
        return [text for item in [*value, *value.values()] for text in strings_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []
