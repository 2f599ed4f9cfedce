"""The flags that worker and root have in common, so that both say the same of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dllama_proto.command_line import between, file_path
from dllama_worker.logs import LOG_FORMATS, LOG_LEVELS

__all__ = ["add_compute_flags", "add_ignored_flags", "add_log_flags", "add_trace_flag"]

_Add = Callable[..., argparse.Action]


#: Threads beyond any machine; more are a slip of the hand.
_MAX_THREADS = 4096


def add_compute_flags(add: _Add, share: str = "") -> None:
    """Add how many threads compute, and with which kernels; ``share`` is what is said of the default."""
    add(
        "--nthreads",
        type=between(1, _MAX_THREADS),
        default=0,
        metavar="N",
        help=f"threads to compute with (default: the physical cores that this process may use{share})",
    )
    add(
        "--kernels",
        default="",
        metavar="[only:]PLUGIN[:VARIANT],…",
        help="plugins whose kernels come first; with only: no others compute (see dllama-ops list)",
    )


def add_trace_flag(add: _Add) -> None:
    """Add the file for a timeline."""
    add(
        "--trace",
        type=file_path,
        metavar="FILE.json",
        help="write a timeline of all ops and syncs (see dllama-proto timeline)",
    )


def add_log_flags(add: _Add) -> None:
    """Add what is logged, and how it is written."""
    add(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="log messages of this level and above (default: info)",
    )
    add("--log-format", choices=LOG_FORMATS, default="text", help="format of log messages (default: text)")


def add_ignored_flags(add: _Add) -> None:
    """Add what the C++ program has and these do not need, so that its command lines work."""
    add("--net-turbo", choices=("0", "1"), default="1", help="no effect; the C++ program has this flag")
