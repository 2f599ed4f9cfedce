"""The command ``dllama-worker tunnel``: how a node without TLS, a C++ one, takes part in a cluster that has it."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from dllama_proto.command_line import CommandParser
from dllama_proto.endpoint import Endpoint, repeated
from dllama_proto.exit_codes import ExitCode
from dllama_proto.terminal import print_line
from dllama_worker.arguments import argument
from dllama_worker.errors import UsageError
from dllama_worker.signals import on_end_signal
from dllama_worker.tls_flags import add_tls_flags, tls_files

__all__ = ["main", "make_parser"]

_DESCRIPTION = """\
Runs beside a program without TLS, for example a C++ node, and passes bytes on:
  --accept HOST:PORT=HOST:PORT  takes TLS at the first address, from nodes with a certificate of the cluster,
                                and connects to the program at the second
  --dial HOST:PORT=HOST:PORT    takes the program's connections at the first address, and connects with TLS to
                                the node at the second
The program's side is loopback: 127.0.0.1 if its HOST is left out, and nothing else is taken. Repeat for more."""
_EPILOG = """\
examples:
  a C++ worker behind a tunnel: dllama worker --port 9991, and
    dllama-worker tunnel --accept 0.0.0.0:9990=9991 --tls-cert w1.crt --tls-key w1.key --tls-ca ca.crt
  a C++ root with a worker elsewhere: dllama inference --workers 127.0.0.1:9001 …, and
    dllama-worker tunnel --dial 9001=10.0.0.2:9990 --tls-cert root.crt --tls-key root.key --tls-ca ca.crt

exit codes: 0 ended by SIGINT or SIGTERM, 2 wrong arguments or files, 4 an address is taken, 1 a bug
"""

_LOOPBACK = "127.0.0.1"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's help text comes from it too."""
    parser = CommandParser(
        prog="dllama-worker tunnel",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, kind, purpose in (
        ("--accept", _accepting, "TLS from the network, plain to the program"),
        ("--dial", _dialling, "plain from the program, TLS to the network"),
    ):
        parser.add_argument(
            flag,
            type=argument(kind),
            action="append",
            default=[],
            metavar="LISTEN=TO",
            help=purpose,
        )
    add_tls_flags(parser)
    return parser


def _accepting(text: str) -> tuple[Endpoint, Endpoint]:
    listen, to = _ends(text)
    _check_loopback(to)
    return listen, to


def _dialling(text: str) -> tuple[Endpoint, Endpoint]:
    listen, to = _ends(text)
    _check_loopback(listen)
    return listen, to


def _ends(text: str) -> tuple[Endpoint, Endpoint]:
    listen, equals, to = text.partition("=")
    if not equals:
        raise ValueError(f"expected LISTEN=TO, got {text!r}: each is HOST:PORT, or PORT on loopback")
    return _end(listen, any_port=True), _end(to, any_port=False)


def _end(text: str, *, any_port: bool) -> Endpoint:
    full = f"{_LOOPBACK}:{text}" if text.isdecimal() else text
    return Endpoint.parse(full, default_host=_LOOPBACK, any_port=any_port)


def _check_loopback(end: Endpoint) -> None:
    if end.host not in ("localhost", "::1") and not end.host.startswith("127."):
        raise ValueError(
            f"{end} is not on loopback: what passes there is not encrypted, so the program must be on this machine"
        )


def main(argv: Sequence[str]) -> int:
    """Run the command until it is told to end; return its exit code. Raises UsageError, MachineError."""
    arguments = make_parser().parse_args(argv)
    from dllama_worker.node.tls import load_tls
    from dllama_worker.tunnel.proxy import TunnelServer

    files = tls_files(arguments)
    if files is None:
        raise UsageError("a tunnel needs --tls-cert, --tls-key and --tls-ca")
    routes = [(*route, True) for route in arguments.accept] + [(*route, False) for route in arguments.dial]
    if not routes:
        raise UsageError("expected --accept or --dial, got neither: see dllama-worker tunnel --help")
    twice = repeated(listen for listen, _, _ in routes if listen.port)
    if twice is not None:
        raise UsageError(f"{twice} is there twice: give each its own port to listen on")
    contexts = load_tls(files)
    end = threading.Event()

    with ExitStack() as stack:
        stack.enter_context(on_end_signal(end.set))
        for listen, to, accepts_tls in routes:
            server = TunnelServer(listen, to, contexts, _tell, accepts_tls=accepts_tls)
            stack.callback(server.close)
            taken, given = ("TLS", "plain") if accepts_tls else ("plain", "TLS")
            _tell(
                f"listening on {Endpoint(listen.host, server.port)} ({taken}), passing on to {to} ({given})"
            )
        end.wait()
    return ExitCode.DONE


def _tell(text: str) -> None:
    print_line(f"dllama-worker tunnel: {text}", sys.stderr)
