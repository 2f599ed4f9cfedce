"""The flags of TLS, which every command has that accepts or dials other nodes."""

from __future__ import annotations

import argparse

from dllama_proto.command_line import file_path
from dllama_worker.errors import UsageError
from dllama_worker.node.tls import TlsFiles

__all__ = ["add_tls_flags", "tls_files"]


def add_tls_flags(parser: argparse.ArgumentParser) -> None:
    """Add the three files, in a group of their own."""
    add = parser.add_argument_group("TLS, for links that only nodes with a certificate join").add_argument
    add(
        "--tls-cert",
        type=file_path,
        metavar="FILE",
        help="certificate of this node, see dllama-worker certificates (default: plain connections)",
    )
    add("--tls-key", type=file_path, metavar="FILE", help="private key of this node's certificate")
    add(
        "--tls-ca",
        type=file_path,
        metavar="FILE",
        help="certificate of the cluster's authority: other nodes must have one from it",
    )


def tls_files(arguments: argparse.Namespace) -> TlsFiles | None:
    """Return the files, None for none. Raises UsageError where only some are given."""
    given = (arguments.tls_cert, arguments.tls_key, arguments.tls_ca)
    if all(path is None for path in given):
        return None
    if None in given:
        raise UsageError("--tls-cert, --tls-key and --tls-ca belong together: give all three, or none")
    return TlsFiles(*given)
