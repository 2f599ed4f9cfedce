"""``dllama-proto tap``: taps that run until they are stopped; what passes is shown by ``dissect``.

The tap makes a pcapng stream of what it passes on. It goes to a file, and to a second process that is nothing
but ``dllama-proto dissect -``: decoding takes its time elsewhere, and never the proxy's.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from dllama_proto.endpoint import Endpoint, repeated
from dllama_proto.messages import Peer
from dllama_proto.terminal import print_line
from dllama_worker.arguments import argument

__all__ = ["Recorder", "add_command", "run_tap"]

_DESCRIPTION = """\
Stands between a root and a worker (or several): listens where the root is told that the worker is, passes
everything on, and shows each message as it passes. Give --listen and --to again for more workers: in one tap
the links between workers are understood as well, if the root was given the taps' addresses. Options that are
not listed here go to "dllama-proto dissect"."""


#: Where a tap listens, or dials, whose host was left out.
_LOOPBACK = "127.0.0.1"


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``tap`` to the commands of ``dllama-proto`` (an entry point of that name)."""
    parser = commands.add_parser(
        "tap",
        help="stand between nodes: pass on, show, record",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--listen",
        type=argument(_listening),
        action="append",
        required=True,
        metavar="H:P",
        help="where the root dials",
    )
    add(
        "--to",
        type=argument(_dialled),
        action="append",
        required=True,
        metavar="H:P",
        help="where the worker listens",
    )
    add(
        "--record", type=Path, metavar="FILE.pcapng", help="write everything to a file that Wireshark opens"
    )
    add("--quiet", action="store_true", help="show nothing, only record")
    add(
        "--peers",
        type=argument(_replacement),
        action="append",
        default=[],
        metavar="H:P=H:P",
        help="in greetings, replace the address of a peer (nothing else is ever changed)",
    )
    parser.set_defaults(run=run_tap, takes_more=True)


def _listening(text: str) -> Endpoint:
    return _one(text, any_port=True)


def _dialled(text: str) -> Endpoint:
    return _one(text, any_port=False)


def _one(text: str, *, any_port: bool) -> Endpoint:
    if "," in text:
        raise ValueError(f"expected one HOST:PORT, got {text!r}: give the flag again for each")
    return Endpoint.parse(text, default_host=_LOOPBACK, any_port=any_port)


def _replacement(text: str) -> tuple[Peer, Peer]:
    old, equals, new = text.partition("=")
    if not equals:
        raise ValueError(f"expected HOST:PORT=HOST:PORT, got {text!r}")
    return _peer(_dialled(old)), _peer(_dialled(new))


def _peer(endpoint: Endpoint) -> Peer:
    return Peer(endpoint.host, endpoint.port)


def _fault_of(listen: Sequence[Endpoint], to: Sequence[Endpoint]) -> str:
    """Return what is wrong with the routes together, or nothing."""
    if len(listen) != len(to):
        return "every --listen needs its --to"
    twice = repeated(end for end in listen if end.port)
    if twice is not None:
        return f"argument --listen: {twice} is there twice: give each its own port"
    twice = repeated(to)
    if twice is not None:
        return f"argument --to: {twice} is there twice: name each worker once"
    for one, other in zip(listen, to, strict=True):
        if one.key == other.key:
            return f"{one} would pass on to itself: --listen is where the root dials, --to is the worker"
    return ""


class Recorder:
    """Takes pieces of a pcapng stream from many threads, whole, and writes them to all of ``sinks``.

    A sink that nobody reads any more is left out.
    """

    def __init__(self, sinks: Sequence[IO[bytes]]) -> None:
        self._sinks = list(sinks)
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> None:
        """Write a piece."""
        with self._lock:
            for sink in tuple(self._sinks):
                try:
                    sink.write(data)
                except (BrokenPipeError, ValueError):
                    self._sinks.remove(sink)

    def close(self) -> None:
        """Write what waits, and end every sink."""
        with self._lock:
            for sink in self._sinks:
                with contextlib.suppress(BrokenPipeError):
                    sink.close()
            self._sinks.clear()


def run_tap(arguments: argparse.Namespace) -> int:
    """Run taps until SIGINT or SIGTERM; return the exit code. Raises OSError where one cannot listen."""
    # Only now: --help should answer at once.
    from dllama_proto.dissect.recording import file_header
    from dllama_worker.tap.proxy import Route, TapServer

    fault = _fault_of(arguments.listen, arguments.to)
    if fault:
        print_line(f"dllama-proto tap: error: {fault}", sys.stderr)
        return 2
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    with contextlib.ExitStack() as stack:
        sinks: list[IO[bytes]] = []
        if arguments.record is not None:
            sinks.append(stack.enter_context(arguments.record.open("wb", buffering=1 << 20)))
        if not arguments.quiet:
            command = [sys.executable, "-u", "-m", "dllama_proto", "dissect", "-", *arguments.more]
            # Its own group: Ctrl-C ends the tap, and the end of the stream ends this.
            shown = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
            stack.callback(shown.wait)
            if shown.stdin is not None:
                sinks.append(shown.stdin)
        record = Recorder(sinks)
        stack.callback(record.close)
        record(file_header())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        for listen, to in zip(arguments.listen, arguments.to, strict=True):
            server = TapServer(Route(listen, to), record, _tell, dict(arguments.peers))
            stack.callback(server.close)
            _tell(f"listening on {Endpoint(listen.host, server.port)}, passing on to {to}")
        stopping.wait()
    return 0


def _tell(text: str) -> None:
    print_line(f"dllama-proto tap: {text}", sys.stderr)
