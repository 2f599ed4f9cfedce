"""The command ``dllama-root plan``: plans, prints, and returns an exit code."""

from __future__ import annotations

import sys

from dllama_proto.terminal import Terminal, print_json, print_line
from dllama_worker.errors import ExitCode, NodeError
from dllama_worker.root.planning.options import PlanOptions
from dllama_worker.root.planning.plan import make_plan
from dllama_worker.root.planning.show import plan_document, print_plan

__all__ = ["run_plan"]


def run_plan(options: PlanOptions) -> int:
    """Be the command."""
    try:
        plan = make_plan(options)
    except NodeError as error:
        print_line(f"dllama-root plan: {error}", sys.stderr)
        return error.exit_code
    if options.as_json:
        print_json(plan_document(plan, options))
        return ExitCode.OK
    print_plan(plan, options, Terminal())
    return ExitCode.OK
