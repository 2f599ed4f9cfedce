"""What can be wrong with bytes, and who is to blame."""

from __future__ import annotations

from typing import ClassVar

from dllama_proto.exit_codes import ExitCode

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """The protocol was broken. Never raised itself: see the subclasses for who broke it.

    ``path`` names the field (``NodeConfig.segments[3].ops[2].input.index``), ``offset`` is its first byte,
    counted from the start of the message (None where no bytes are involved), ``expected`` and ``got`` say
    what should have been there and what was.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(
        self, path: str, *, expected: str, got: str, offset: int | None = None, hint: str = ""
    ) -> None:
        self.path = path
        self.expected = expected
        self.got = got
        self.offset = offset
        self.hint = hint
        where = path if offset is None else f"{path} at byte {offset}"
        super().__init__(f"{where}: expected {expected}, got {got}" + (f" ({hint})" if hint else ""))


class RemoteProtocolError(ProtocolError):
    """The other side sent something it must not send."""

    exit_code = ExitCode.PEER


class LocalProtocolError(ProtocolError):
    """Our own caller asked to send something that must not be sent, or at the wrong time."""

    exit_code = ExitCode.BUG
