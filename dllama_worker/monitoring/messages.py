"""How often each event was logged, by level: a log handler that counts."""

from __future__ import annotations

import logging
from collections import Counter

from dllama_worker.logs import LOGGER_NAME

__all__ = ["MessageCounts"]


class MessageCounts(logging.Handler):
    """Counts log records by (level, event); events are few, their names are in the code."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record; the handler's lock is held."""
        self._counts[record.levelname.lower(), getattr(record, "event", record.name)] += 1

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the counts so far."""
        self.acquire()
        try:
            return dict(self._counts)
        finally:
            self.release()

    def start(self) -> None:
        """Count from now on."""
        logging.getLogger(LOGGER_NAME).addHandler(self)

    def stop(self) -> None:
        """Count no more."""
        logging.getLogger(LOGGER_NAME).removeHandler(self)
