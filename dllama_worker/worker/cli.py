"""The command ``dllama-worker``, but for its subcommands: flags are read, then a worker is run."""

from __future__ import annotations

from collections.abc import Sequence

from dllama_worker.logs import set_up_logging
from dllama_worker.node.library_threads import limit_library_threads
from dllama_worker.worker.flags import make_parser, options_of
from dllama_worker.worker.parent_watch import end_with_standard_input
from dllama_worker.worker.settings_file import parse_arguments

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    arguments = parse_arguments(make_parser, argv)
    options = options_of(arguments)
    if arguments.end_with_stdin:
        end_with_standard_input()
    set_up_logging(arguments.log_level, arguments.log_format)
    limit_library_threads(options.n_threads)
    # Only now: NumPy is heavy, and --help should answer at once.
    from dllama_worker.report import Report
    from dllama_worker.worker.worker import run_worker

    report = Report.for_terminal() if arguments.log_format == "text" else Report()
    return run_worker(options, report, once=arguments.once)
