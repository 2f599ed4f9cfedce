"""The kernels of this process: every plugin asked once, what is broken told, what was asked for preferred."""

from __future__ import annotations

from collections import Counter

from dllama_ops import native
from dllama_ops.errors import KernelChoiceError, KernelClash
from dllama_ops.plugins import make_plugin_manager
from dllama_ops.table import KernelTable, build_kernel_table
from dllama_proto.formatting import counted
from dllama_worker.errors import UsageError
from dllama_worker.node.machine import instruction_sets
from dllama_worker.report import Report

__all__ = ["choose_kernels", "tell_compute"]


def choose_kernels(prefer: str, report: Report) -> KernelTable:
    """Build the kernel table for a ``--kernels`` preference; broken plugins are reported and left out.

    Raises UsageError where the preference names what does not exist, or two plugins clash.
    """
    try:
        table = build_kernel_table(make_plugin_manager(), prefer)
    except (KernelChoiceError, KernelClash) as error:
        raise UsageError(str(error)) from error
    if native.unavailable is not None:
        report.info(
            "no_native_kernels", f"no native kernels: {native.unavailable}", reason=native.unavailable
        )
    for failure in table.failures:
        report.warning("plugin_fault", f"{failure}; continuing without it", plugin=failure.plugin)
    return table


def tell_compute(table: KernelTable, n_threads: int, report: Report) -> None:
    """Say in one line what this node computes with: kernels, threads, instruction sets of the processor."""
    counts = Counter(choice.entry.source for choice in table.choices.values())
    sources = dict(counts.most_common())
    if len(sources) == 1:
        kernels = next(iter(sources))
    else:  # of how many pairs of op and types each is the kernel
        kernels = ", ".join(f"{source} ({count} of {counts.total()})" for source, count in sources.items())
    processor = instruction_sets()
    has = " ".join(processor) or "what the system does not say"
    report.info(
        "compute",
        f"kernels {kernels}; {counted(n_threads, 'thread')}; the processor has {has}",
        kernels=sources,
        n_threads=n_threads,
        instruction_sets=processor,
    )
