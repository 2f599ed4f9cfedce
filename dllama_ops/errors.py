"""What can go wrong with kernels, by who is to blame.

:class:`KernelDataError` is the peer's (a number that came off the wire), :class:`WeightPieceError` the code's that
feeds a kernel (the protocol has checked what came off the wire). :class:`KernelChoiceError` and
:class:`KernelClash` are the caller's, who decides by ``--kernels``; :class:`KernelNotFound` is the installation's.
A third-party plugin that is broken when it is asked for kernels is no exception but a :class:`PluginFailure` on
record: whatever other plugins cover still runs. One that fails later, when nothing can take its place, raises
:class:`KernelFailed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from dllama_proto.exit_codes import ExitCode

__all__ = [
    "KernelChoiceError",
    "KernelClash",
    "KernelDataError",
    "KernelFailed",
    "KernelNotFound",
    "OpsError",
    "PluginFailure",
    "WeightPieceError",
]


class OpsError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class KernelDataError(OpsError, ValueError):
    """A number that an op uses as an index (position, token, expert) is out of range.

    Such numbers come off the wire with every batch, so the peer is to blame. Raised by ``forward`` before
    anything is written.
    """

    exit_code = ExitCode.PEER

    def __init__(self, op: str, what: str, value: float, bound: int) -> None:
        """Take the op's key and name, what the number is, the number, and the first value out of range."""
        super().__init__(f"{op}: expected {what} in 0..{bound - 1}, got {value:g}")
        self.op = op
        self.what = what
        self.value = value
        self.bound = bound


class WeightPieceError(OpsError, ValueError):
    """A piece of a weight lies outside the weight, or came too late."""

    exit_code = ExitCode.BUG


class KernelNotFound(OpsError, LookupError):
    """No plugin has a kernel for a key."""

    exit_code = ExitCode.MACHINE


class KernelClash(OpsError):
    """Two plugins offer a kernel for the same key with the same priority, and nothing decides."""

    exit_code = ExitCode.CALLER


class KernelChoiceError(OpsError, ValueError):
    """A preference of kernels names something that does not exist, or cannot be read."""

    exit_code = ExitCode.CALLER


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that was left out, or that failed once: who, while doing what, and why."""

    plugin: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} failed to {self.stage}: {self.reason}"

    @classmethod
    def of(cls, plugin: str, stage: str, error: BaseException) -> PluginFailure:
        """Describe an exception by its type and message."""
        return cls(plugin, stage, f"{type(error).__name__}: {error}")


class KernelFailed(OpsError):
    """A kernel of an installed plugin raised: while it was made, fed or run. ``place`` is where in its source."""

    exit_code = ExitCode.MACHINE

    def __init__(self, failure: PluginFailure, place: str) -> None:
        super().__init__(f"{failure} ({place}); mend or uninstall it, or choose others with --kernels")
        self.failure = failure
        self.place = place


def listed(names: Iterable[str]) -> str:
    """Join names for a message, or say that there are none."""
    return ", ".join(names) or "none"
