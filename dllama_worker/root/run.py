"""Runs one command of the root and turns whatever happens into an exit code."""

from __future__ import annotations

import signal
from types import FrameType

from dllama_ops.errors import KernelDataError
from dllama_proto.errors import ProtocolError
from dllama_worker.errors import ExitCode, NodeError, PeerLost, exit_code
from dllama_worker.report import Report
from dllama_worker.root.commands import run_chat, run_inference, run_perplexity
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import RootSession, open_session

__all__ = ["run_root"]

_COMMANDS = {"inference": run_inference, "perplexity": run_perplexity, "chat": run_chat}

#: What shells report for a command that Ctrl-C ended.
_INTERRUPTED = 130


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends the command as Ctrl-C does, so that workers are told and local ones ended."""


def run_root(options: RootOptions) -> int:
    """Be the command; return its exit code."""
    report = Report() if options.as_json else Report.for_terminal()

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    session: RootSession | None = None
    try:
        with open_session(options, report) as session:
            _COMMANDS[options.command](session, options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except PeerLost as error:
        at = f" at position {session.inference.position}" if session is not None else ""
        report.error("worker_lost", f"lost {error.node}{at}: {error.reason}", node=error.node)
        return error.exit_code
    except (NodeError, ProtocolError, KernelDataError, MemoryError, OSError) as error:
        report.error("failed", str(error) or type(error).__name__, kind=type(error).__name__)
        return exit_code(error)
    except Exception as error:
        report.error("failed", f"a bug of this program, please report it: {error}", traceback=error)
        return ExitCode.INTERNAL
    return ExitCode.OK
