"""The command ``dllama-root plan``: plans, prints, and returns an exit code."""

from __future__ import annotations

import sys

from dllama_proto.json_text import json_text
from dllama_worker.errors import ExitCode, NodeError
from dllama_worker.root.planning.options import PlanOptions
from dllama_worker.root.planning.plan import make_plan
from dllama_worker.root.planning.show import plan_document, print_plan

__all__ = ["run_plan"]

_FILE_WIDTH = 160


def run_plan(options: PlanOptions) -> int:
    """Be the command."""
    try:
        plan = make_plan(options)
    except NodeError as error:
        print(f"dllama-root plan: {error}", file=sys.stderr)
        return error.exit_code
    if options.as_json:
        print(json_text(plan_document(plan, options)))
        return ExitCode.OK
    from rich.console import Console

    # Into a file or a pipe the table goes whole, however narrow a terminal might be.
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    print_plan(plan, options, Console(highlight=False, width=width))
    return ExitCode.OK
