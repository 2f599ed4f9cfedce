"""What can be wrong with bytes, and who is to blame."""

from __future__ import annotations

from typing import ClassVar

from dllama_proto.bounded_text import shortened
from dllama_proto.exit_codes import ExitCode

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]

#: Letters of each of an error's texts.
_PART_LENGTH = 500


class ProtocolError(Exception):
    """The protocol was broken. Never raised itself: see the subclasses for who broke it.

    ``path`` names the field (``NodeConfig.segments[3].ops[2].input.index``), ``offset`` is its first byte,
    counted from the start of the message (None where no bytes are involved), ``expected`` and ``got`` say
    what should have been there and what was. Each text is cut off where it is longer than a person reads.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(
        self, path: str, *, expected: str, got: str, offset: int | None = None, hint: str = ""
    ) -> None:
        self.path, self.expected, self.got, self.hint = (
            shortened(text, _PART_LENGTH) for text in (path, expected, got, hint)
        )
        self.offset = offset
        where = self.path if offset is None else f"{self.path} at byte {offset}"
        hint = f" ({self.hint})" if self.hint else ""
        super().__init__(f"{where}: expected {self.expected}, got {self.got}{hint}")


class RemoteProtocolError(ProtocolError):
    """The other side sent something it must not send."""

    exit_code = ExitCode.PEER


class LocalProtocolError(ProtocolError):
    """Our own caller asked to send something that must not be sent, or at the wrong time."""

    exit_code = ExitCode.BUG
