"""What can end a session or the process, by who is to blame.

The errors of :mod:`dllama_proto.errors` and :mod:`dllama_ops.errors` join these. How a command ends with any of
them is decided by :mod:`dllama_proto.exit_codes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from dllama_proto.bounded_text import FirstFew
from dllama_proto.exit_codes import ExitCode
from dllama_proto.formatting import counted

__all__ = [
    "BadLogits",
    "ConfigRejected",
    "InternalError",
    "MachineError",
    "NodeError",
    "PeerLost",
    "PeerRefused",
    "UsageError",
    "WeightMismatch",
    "cannot_listen",
    "reason_of",
]


class NodeError(Exception):
    """Base of what a node raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class UsageError(NodeError):
    """The caller asked for something impossible: a file that is no model, an unknown kernel set."""

    exit_code = ExitCode.CALLER


class PeerLost(NodeError):
    """Another node is gone or out of reach: closed, reset, timed out. ``node`` says which, as people do.

    ``hung_up`` tells that it closed the connection between two messages: it knows why, this node doesn't.
    """

    exit_code = ExitCode.PEER
    verb: ClassVar[str] = ""

    def __init__(self, node: str, reason: str, *, hung_up: bool = False) -> None:
        self.node = node
        self.reason = reason
        self.hung_up = hung_up
        super().__init__(f"{node}{self.verb}: {reason}")

    def with_hint(self, hint: str) -> PeerLost:
        """Return the same error with a text behind its reason, if that is not empty, and the same cause."""
        if not hint:
            return self
        told = type(self)(self.node, f"{self.reason}; {hint}", hung_up=self.hung_up)
        told.__cause__ = self.__cause__
        return told


class PeerRefused(PeerLost):
    """A worker cannot go on, and said why: ``reason`` is in its own words."""

    exit_code = ExitCode.PEER
    verb = " refuses"


class ConfigRejected(NodeError):
    """The root's configuration is well-formed but this node cannot run it.

    ``faults`` says why: the first few of them. ``n_faults`` is how many there are.
    """

    exit_code = ExitCode.PEER

    def __init__(self, faults: FirstFew | Iterable[str]) -> None:
        found = faults if isinstance(faults, FirstFew) else FirstFew(faults)
        self.faults = found.shown
        self.n_faults = len(found)
        super().__init__(
            f"the root's configuration has {counted(self.n_faults, 'fault')}: {found.joined('; ')}"
        )


class WeightMismatch(NodeError):
    """Weights are missing, or differ from the local model file; names the tensor."""

    exit_code = ExitCode.PEER


class BadLogits(NodeError):
    """What the cluster computed is not numbers: a node is broken or lies, or the model's weights are broken."""

    exit_code = ExitCode.PEER


class MachineError(NodeError):
    """This machine cannot do it: the port is taken, memory does not suffice."""

    exit_code = ExitCode.MACHINE


class InternalError(NodeError):
    """A bug of this project: please report it."""

    exit_code = ExitCode.BUG


def reason_of(error: OSError) -> str:
    """Return what the system says, without the address that ``create_server`` adds to it."""
    return (error.strerror or str(error)).partition(" (while attempting")[0]


def cannot_listen(where: str, error: OSError, advice: str) -> MachineError:
    """Return the error of a listener that could not be made: where, why, and what to do."""
    return MachineError(f"cannot listen on {where}: {reason_of(error)}; {advice}")
