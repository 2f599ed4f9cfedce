"""Which version this is: said in ``pyproject.toml``, read from what is installed, and only when asked.

Reading it takes longer than all else that a command's help needs, so neither importing a package nor making a
parser does it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from dllama_proto.terminal import print_line

__all__ = ["VersionAction", "installed_version"]

_DISTRIBUTION = "dllama-worker"


def installed_version() -> str:
    """Return the version of the distribution, or ``0+unknown`` where the sources run without being installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"


class VersionAction(argparse.Action):
    """``--version``: print the program's name and the version, then exit with 0."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(
            option_strings,
            dest,
            nargs=0,
            default=argparse.SUPPRESS,
            help="show the version and exit",
        )

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print ``dllama-root 0.1.0`` to standard output."""
        print_line(f"{parser.prog} {installed_version()}")
        parser.exit()
