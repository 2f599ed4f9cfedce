"""The command ``dllama-worker certificates``: who is in a cluster is decided by who gets files from here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dllama_proto.command_line import CommandParser, between, file_path
from dllama_proto.exit_codes import ExitCode
from dllama_proto.terminal import print_line

__all__ = ["main", "make_parser"]

_DESCRIPTION = (
    "Makes certificates with which only the nodes of one cluster join its links: an authority (ca.crt, ca.key), "
    "made once, and for each NODE a certificate and its key. Give each node its two files and ca.crt; ca.key "
    "stays where it is, to add nodes later. No file is ever overwritten."
)
_EPILOG = """\
examples:
  dllama-worker certificates --out tls root kitchen attic     for a root and two workers
  dllama-worker certificates --out tls cellar                 another node for the same cluster

exit codes: 0 done, 2 wrong arguments, a file is there already, or the package cryptography is missing,
1 a bug
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's help text comes from it too."""
    parser = CommandParser(
        prog="dllama-worker certificates",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--out",
        type=file_path,
        required=True,
        metavar="DIR",
        help="folder for the files, made if it is not there",
    )
    add(
        "--days",
        type=between(1, 36500),
        default=825,
        metavar="N",
        help="how long the nodes' certificates are valid (default: %(default)s); the authority's for ten years, "
        "or as long",
    )
    add(
        "nodes",
        nargs="+",
        metavar="NODE",
        help="a name for each node: letters, digits, and . _ - between them",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit code. Raises UsageError."""
    arguments = make_parser().parse_args(argv)
    from dllama_worker.certificates.authority import make_certificates

    for path in make_certificates(arguments.out, arguments.nodes, arguments.days):
        print_line(str(path), sys.stdout)
    return ExitCode.DONE
