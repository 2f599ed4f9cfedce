"""The parser of every command, and how words become values: what is wrong is told in one line, not under usage."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from dllama_proto.printable import printable

__all__ = ["CommandParser", "at_least", "between", "file_name", "file_path", "not_negative"]


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, but for how it complains: one line, and where to read which arguments there are.

    What somebody typed is shown with escapes for its control characters. The parsers of subcommands, made by
    ``add_subparsers``, are of this class too.
    """

    def error(self, message: str) -> NoReturn:
        """Print a line to standard error: what is wrong, and the command that shows the help. Exit with 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")


def file_name(text: str) -> str:
    """Read what names a file or folder: some text, without NUL, which no system has in a name."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected the name of a file, got {text!r}")
    return text


def file_path(text: str) -> Path:
    """Read the path of a file or folder, as :func:`file_name` does."""
    return Path(file_name(text))


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` on."""
    return _whole_number(least, None)


def between(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` to ``most``."""
    return _whole_number(least, most)


def _whole_number(least: int, most: int | None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            bounds = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"expected {bounds}, got {value}")
        return value

    parse.__name__ = "whole number"
    return parse


def not_negative(text: str) -> float:
    """Read a finite number of 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {value:g}")
    return value
