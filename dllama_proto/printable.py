"""Text from others, made fit for a terminal or a log: one line, no control characters."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return the text with escapes (``\n``, ``\x1b``) for what is not to be printed.

    Names come from the wire: a line break in one would forge a line, an escape sequence would steer the terminal.
    Line breaks, controls, marks that turn the writing direction, and bytes that were no UTF-8 are escaped.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
