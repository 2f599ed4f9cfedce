"""A report that remembers what was told, instead of logging it."""

from __future__ import annotations

from typing import Any

from dllama_worker.report import Report

__all__ = ["Collected"]


class Collected(Report):
    """``told`` holds (event, message, fields) in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, message: str, **fields: Any) -> None:
        self.told.append((event, message, fields))

    def warning(self, event: str, message: str, **fields: Any) -> None:
        self.told.append((event, message, fields))

    def error(
        self, event: str, message: str, *, traceback: BaseException | None = None, **fields: Any
    ) -> None:
        self.told.append((event, message, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of every entry of an event."""
        return [fields for name, _, fields in self.told if name == event]
