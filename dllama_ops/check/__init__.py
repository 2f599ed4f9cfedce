"""What ``dllama-ops check`` runs: the conformance kit on the plugins that are installed."""

from dllama_ops.check.selection import Selection, select
from dllama_ops.check.suite import CaseFailure, CheckReport, KernelResult, SegmentResult, Tally, run_suite

__all__ = [
    "CaseFailure",
    "CheckReport",
    "KernelResult",
    "SegmentResult",
    "Selection",
    "Tally",
    "run_suite",
    "select",
]
