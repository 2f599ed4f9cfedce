"""A report that remembers what was told, instead of logging it."""

from __future__ import annotations

import threading
from typing import Any

from dllama_worker.report import Report

__all__ = ["Collected"]

_TIMEOUT = 30.0


class Collected(Report):
    """``told`` holds (event, message, fields) in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self._changed = threading.Condition()

    def info(self, event: str, message: str, **fields: Any) -> None:
        self._tell(event, message, fields)

    def warning(self, event: str, message: str, **fields: Any) -> None:
        self._tell(event, message, fields)

    def error(
        self, event: str, message: str, *, traceback: BaseException | None = None, **fields: Any
    ) -> None:
        self._tell(event, message, fields)

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of every entry of an event."""
        return [fields for name, _, fields in self.told if name == event]

    def wait_for(self, text: str) -> None:
        """Wait until a message has the ``text``, which another thread is about to tell; else AssertionError."""
        with self._changed:
            if not self._changed.wait_for(lambda: text in self.messages, _TIMEOUT):
                raise AssertionError(f"nobody told {text!r}, but: {self.messages}")

    @property
    def messages(self) -> str:
        """All messages, a line each."""
        return "\n".join(message for _, message, _ in self.told)

    def _tell(self, event: str, message: str, fields: dict[str, Any]) -> None:
        with self._changed:
            self.told.append((event, message, fields))
            self._changed.notify_all()
