"""Whose fault it is when a kernel raises: an installed plugin's, which is named, or our own, which stays a bug."""

from __future__ import annotations

import traceback
from types import TracebackType

from dllama_ops.errors import KernelFailed, PluginFailure
from dllama_proto.exit_codes import ExitCode

__all__ = ["Blame", "OWN_PLUGINS"]

#: Plugins of this package. Without a name is what somebody made without a table of kernels.
OWN_PLUGINS = frozenset({"", "native", "numpy"})


class Blame:
    """A context manager in which a plugin's code runs: what it raises becomes a KernelFailed that names it.

    ``stage`` says what it does, for which op. An error that says itself who is to blame (KernelDataError), and
    a lack of memory, pass as they are.
    """

    def __init__(self, plugin: str, stage: str) -> None:
        self._plugin = plugin
        self._stage = stage

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._plugin in OWN_PLUGINS or not isinstance(error, (Exception, SystemExit)):
            return
        if isinstance(error, MemoryError) or isinstance(getattr(error, "exit_code", None), ExitCode):
            return
        failure = PluginFailure.of(self._plugin, self._stage, error)
        raise KernelFailed(failure, _place(error)) from error


def _place(error: BaseException) -> str:
    """Return where an error was raised, for who mends it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "an unknown place"
