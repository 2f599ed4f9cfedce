"""The command ``dllama-root``: flags are read, then a subcommand is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dllama_proto.exit_codes import run_command
from dllama_worker.logs import set_up_logging
from dllama_worker.node.library_threads import limit_library_threads
from dllama_worker.root.flags import make_parser, options_of
from dllama_worker.root.planning.options import plan_options

__all__ = ["main"]

_NAME = "dllama-root"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_NAME, lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    arguments = make_parser().parse_args(argv)
    parser = arguments.parser  # the subcommand's
    if arguments.command == "plan":
        planned = plan_options(parser, arguments)
        from dllama_worker.root.planning.command import run_plan

        return run_command(f"{_NAME} plan", lambda: run_plan(planned))
    options = options_of(parser, arguments)
    set_up_logging(arguments.log_level, arguments.log_format)
    limit_library_threads(options.n_threads)
    # Only now: NumPy is heavy, and --help should answer at once.
    from dllama_worker.root.run import run_root

    return run_root(options)


if __name__ == "__main__":
    sys.exit(main())
