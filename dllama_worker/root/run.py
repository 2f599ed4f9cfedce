"""Runs one command of the root: a session opened, the command in it, what failed reported."""

from __future__ import annotations

import signal
from functools import partial
from types import FrameType

from dllama_proto.exit_codes import ExitCode
from dllama_worker.errors import PeerLost, PeerRefused
from dllama_worker.report import Report
from dllama_worker.root.commands import run_chat, run_inference, run_perplexity
from dllama_worker.root.options import RootOptions
from dllama_worker.root.preconditions import check_request
from dllama_worker.root.session import RootSession, open_session

__all__ = ["run_root"]

_COMMANDS = {"inference": run_inference, "perplexity": run_perplexity, "chat": run_chat}


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends the command as Ctrl-C does, so that workers are told and local ones ended."""


def run_root(options: RootOptions) -> int:
    """Be the command; return its exit code. Raises KeyboardInterrupt on Ctrl-C and SIGTERM, all nodes told."""
    report = Report() if options.as_json else Report.for_terminal()

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    session: RootSession | None = None
    try:
        with open_session(options, report, partial(check_request, options)) as session:
            _COMMANDS[options.command](session, options)
    except PeerRefused as error:
        report.error("worker_refused", str(error), node=error.node, reason=error.reason)
        return error.exit_code
    except PeerLost as error:
        at = f" at position {session.inference.position}" if session is not None else ""
        report.error("worker_lost", f"lost {error.node}{at}: {error.reason}", node=error.node)
        return error.exit_code
    except Exception as error:
        return report.failure("failed", error)
    return ExitCode.DONE
