"""The command ``dllama-root plan``: plans and prints."""

from __future__ import annotations

from dllama_proto.exit_codes import ExitCode
from dllama_proto.terminal import Terminal, print_json
from dllama_worker.root.planning.options import PlanOptions
from dllama_worker.root.planning.plan import make_plan
from dllama_worker.root.planning.show import plan_document, print_plan

__all__ = ["run_plan"]


def run_plan(options: PlanOptions) -> int:
    """Be the command. Raises UsageError where there is no such model, or no such split of it."""
    plan = make_plan(options)
    if options.as_json:
        print_json(plan_document(plan, options))
    else:
        print_plan(plan, options, Terminal())
    return ExitCode.DONE
