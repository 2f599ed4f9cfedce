"""``dllama-model pull``: fetches a model, and prints where it is."""

from __future__ import annotations

from pathlib import Path

from dllama_proto.exit_codes import ExitCode
from dllama_proto.terminal import print_line
from dllama_worker.model.location import locate_model

__all__ = ["pull_model"]


def pull_model(model: Path) -> int:
    """Fetch it unless the cache has it. Raises UsageError, MachineError."""
    print_line(str(locate_model(model)))
    return ExitCode.DONE
