"""``dllama-proto tap``: taps that run until they are stopped; what passes is shown by ``dissect``.

The tap makes a pcapng stream of what it passes on. It goes to a file, and to a second process that is nothing
but ``dllama-proto dissect -``: decoding takes its time elsewhere, and never the proxy's.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING

from dllama_proto.command_line import CommandParser, file_path
from dllama_proto.endpoint import Endpoint, repeated
from dllama_proto.exit_codes import ExitCode, error_text
from dllama_proto.messages import Peer
from dllama_proto.terminal import print_line
from dllama_worker.arguments import argument
from dllama_worker.errors import UsageError
from dllama_worker.signals import on_end_signal

if TYPE_CHECKING:
    from dllama_worker.tap.proxy import Route

__all__ = ["Recorder", "add_command", "run_tap"]

_DESCRIPTION = """\
Runs between a root and one or more workers: accepts the root's connection in place of the worker, forwards
everything, and shows each message on its way. Repeat --listen and --to for more workers. One tap for all of
them also shows the links between workers, if the root was given the tap's addresses. Options that are not
listed here go to "dllama-proto dissect"."""


#: Where a tap listens, or dials, whose host was left out.
_LOOPBACK = "127.0.0.1"


def add_command(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add ``tap`` to the commands of ``dllama-proto`` (an entry point of that name)."""
    parser = commands.add_parser(
        "tap",
        help="forward what nodes send, and show or record it",
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
        help="address that the root connects to",
    )
    add(
        "--to",
        type=argument(_dialled),
        action="append",
        required=True,
        metavar="H:P",
        help="address of the worker",
    )
    add(
        "--record",
        type=file_path,
        metavar="FILE.pcapng",
        help="write everything to a file that Wireshark opens",
    )
    add("--quiet", action="store_true", help="show nothing, only record")
    add(
        "--peers",
        type=argument(_replacement),
        action="append",
        default=[],
        metavar="H:P=H:P",
        help="in greetings, replace the address of a peer (nothing else is changed)",
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
        raise ValueError(
            f"expected HOST:PORT=HOST:PORT, got {text!r}: first the address that the root sends, then the one "
            "to send instead"
        )
    return _peer(_dialled(old)), _peer(_dialled(new))


def _peer(endpoint: Endpoint) -> Peer:
    return Peer(endpoint.host, endpoint.port)


def _problem_of(listen: Sequence[Endpoint], to: Sequence[Endpoint]) -> str:
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
            return (
                f"{one} would forward to itself: --listen is the address that the root connects to, --to that "
                "of the worker"
            )
    return ""


class Recorder:
    """Takes pieces of a pcapng file from many threads, whole, and writes them to every sink.

    A sink that nobody reads any more is left out; so is one that takes no more, a file on a full disk, after
    ``failed`` was told why. Whoever passes traffic on through here never hears of it.
    """

    def __init__(self, header: bytes, failed: Callable[[OSError], None]) -> None:
        self._header = header
        self._failed = failed
        self._sinks: list[IO[bytes]] = []
        self._lock = threading.Lock()
        #: Whether there was a piece.
        self.has_begun = False
        self.is_closed = False

    def add(self, sink: IO[bytes]) -> None:
        """Write to ``sink`` from now on, the header of the file first."""
        with self._lock:
            self._sinks.append(sink)
            self._write(sink, self._header)

    def __call__(self, data: bytes) -> None:
        """Write a piece."""
        with self._lock:
            self.has_begun = True
            for sink in tuple(self._sinks):
                self._write(sink, data)

    def close(self) -> None:
        """Write what waits, and end every sink."""
        with self._lock:
            self.is_closed = True
            for sink in tuple(self._sinks):
                self._end(sink)

    def _write(self, sink: IO[bytes], data: bytes) -> None:
        try:
            sink.write(data)
        except (BrokenPipeError, ValueError):
            self._sinks.remove(sink)
        except OSError as error:
            self._failed(error)
            self._end(sink, is_told=True)

    def _end(self, sink: IO[bytes], *, is_told: bool = False) -> None:
        """Leave a sink out and close it, which writes what waits."""
        self._sinks.remove(sink)
        try:
            sink.close()
        except BrokenPipeError:
            pass
        except OSError as error:
            if not is_told:
                self._failed(error)


def run_tap(arguments: argparse.Namespace) -> int:
    """Run taps until SIGINT or SIGTERM; return the exit code.

    Where what shows the messages ends before there are any, the tap ends with its exit code; later, nobody's
    session is broken off for it. Raises UsageError where the routes do not go together, MachineError where one
    cannot listen, and OSError.
    """
    # Only now: --help should answer at once.
    from dllama_proto.cli import make_parser
    from dllama_proto.dissect.recording import file_header
    from dllama_worker.tap.proxy import Route, TapServer
    from dllama_worker.tap.viewer import Viewer

    problem = _problem_of(arguments.listen, arguments.to)
    if problem:
        raise UsageError(problem)
    routes = [Route(listen, to) for listen, to in zip(arguments.listen, arguments.to, strict=True)]
    shown = ["dissect", "-", f"--title={_title(routes)}", *arguments.more]
    make_parser().parse_args(shown)  # what is wrong with them is told now, not by another process later
    ends: SimpleQueue[int] = SimpleQueue()

    def viewer_ended(code: int) -> None:
        if record.is_closed:
            return
        if record.has_begun:
            kept = "" if arguments.record is None else f" and recorded in {arguments.record}"
            _tell(f"nothing is shown any more; what comes is still passed on{kept} until Ctrl-C")
        else:
            _tell(
                f"dllama-proto dissect, which shows the messages, ended with exit code {code}; so does the tap"
            )
            ends.put(code)

    def full(error: OSError) -> None:
        _tell(
            f"cannot write {arguments.record}: {error_text(error)}; nothing more is recorded, what comes is "
            "still passed on"
        )

    with contextlib.ExitStack() as stack:
        record = Recorder(file_header(), full)
        if arguments.record is not None:
            record.add(stack.enter_context(arguments.record.open("wb", buffering=1 << 20)))
        if not arguments.quiet:
            viewer = Viewer(shown, viewer_ended)
            stack.callback(viewer.wait)
            record.add(viewer.sink)
        stack.callback(record.close)
        stack.enter_context(on_end_signal(partial(ends.put, ExitCode.DONE)))
        for route in routes:
            server = TapServer(route, record, _tell, dict(arguments.peers))
            stack.callback(server.close)
            _tell(f"listening on {Endpoint(route.listen.host, server.port)}, passing on to {route.to}")
        return ends.get()


def _title(routes: Sequence[Route]) -> str:
    """Return what the viewer calls its input."""
    return "tap " + ", ".join(f"{route.listen} > {route.to}" for route in routes)


def _tell(text: str) -> None:
    print_line(f"dllama-proto tap: {text}", sys.stderr)
