"""The kernels of this process: every plugin asked once, what is broken told, what was asked for preferred."""

from __future__ import annotations

from dllama_ops import native
from dllama_ops.errors import OpsError
from dllama_ops.plugins import make_plugin_manager
from dllama_ops.table import KernelTable, build_kernel_table
from dllama_worker.errors import UsageError
from dllama_worker.report import Report

__all__ = ["choose_kernels"]


def choose_kernels(prefer: str, report: Report) -> KernelTable:
    """Build the kernel table for a ``--kernels`` preference; broken plugins are reported and left out.

    Raises UsageError where the preference names what does not exist, or two plugins clash.
    """
    try:
        table = build_kernel_table(make_plugin_manager(), prefer)
    except OpsError as error:
        raise UsageError(str(error)) from error
    if native.unavailable is not None:
        report.info(
            "no_native_kernels", f"no native kernels: {native.unavailable}", reason=native.unavailable
        )
    for failure in table.failures:
        report.warning("plugin_fault", f"{failure}; going on without it", plugin=failure.plugin)
    return table
