"""What a check found: a fact, how good it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from dllama_proto.exit_codes import ExitCode

__all__ = ["Finding", "Grade"]


class Grade(Enum):
    """How good a fact is."""

    OK = "ok"
    #: It works, but worse than it could.
    WARNING = "warning"
    #: A worker with these flags would not start, or not find its cluster.
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table. ``facts`` are for programs; ``exit_code`` says who is to blame for a failure."""

    name: str
    text: str
    grade: Grade = Grade.OK
    advice: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    exit_code: ExitCode = ExitCode.MACHINE
