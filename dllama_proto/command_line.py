"""The parser of every command: what is wrong with a command line is told in one line, not under pages of usage."""

from __future__ import annotations

import argparse
from typing import NoReturn

from dllama_proto.printable import printable

__all__ = ["CommandParser"]


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, but for how it complains: one line, and where to read which arguments there are.

    What somebody typed is shown with escapes for its control characters. The parsers of subcommands, made by
    ``add_subparsers``, are of this class too.
    """

    def error(self, message: str) -> NoReturn:
        """Print a line to standard error: what is wrong, and the command that shows the help. Exit with 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")
