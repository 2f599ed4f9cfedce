"""What can end a session or the process, by who is to blame, and the exit code that says so.

The protocol's own :class:`~dllama_proto.errors.ProtocolError` joins these: a
:class:`~dllama_proto.errors.RemoteProtocolError` is the peer's fault, a ``LocalProtocolError`` a bug of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from dllama_proto.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "BadLogits",
    "ConfigRejected",
    "ExitCode",
    "InternalError",
    "MachineError",
    "NodeError",
    "PeerLost",
    "UsageError",
    "WeightMismatch",
    "exit_code",
]


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    #: A bug of ours.
    INTERNAL = 1
    #: Wrong arguments or an unusable file: the caller's to mend.
    USAGE = 2
    #: Another node went away, broke the protocol or asked for what cannot be done.
    PEER = 3
    #: The machine lacks something: a free port, memory.
    MACHINE = 4


class NodeError(Exception):
    """Base of what a node raises on purpose; ``exit_code`` is what a command ends with."""

    exit_code = ExitCode.INTERNAL


class UsageError(NodeError):
    """The caller asked for something impossible: a file that is no model, an unknown kernel set."""

    exit_code = ExitCode.USAGE


class PeerLost(NodeError):
    """Another node is gone or out of reach: closed, reset, timed out. ``node`` says which, as people do."""

    exit_code = ExitCode.PEER

    def __init__(self, node: str, reason: str) -> None:
        self.node = node
        self.reason = reason
        super().__init__(f"{node}: {reason}")


class ConfigRejected(NodeError):
    """The root's configuration is well-formed but this node cannot run it; ``faults`` says why, all of it."""

    exit_code = ExitCode.PEER

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"the root's configuration has {count}: " + "; ".join(self.faults))


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

    exit_code = ExitCode.INTERNAL


def exit_code(error: BaseException) -> ExitCode:
    """Return what a command that failed with ``error`` ends with."""
    if isinstance(error, NodeError):
        return error.exit_code
    if isinstance(error, RemoteProtocolError):
        return ExitCode.PEER
    if isinstance(error, LocalProtocolError):
        return ExitCode.INTERNAL
    if isinstance(error, MemoryError | OSError):
        return ExitCode.MACHINE
    return ExitCode.INTERNAL
