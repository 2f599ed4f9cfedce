"""How often each event was logged, by level."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from dllama_worker.logs import LOGGER_NAME

__all__ = ["MessageCounts"]


class MessageCounts(logging.Filter):
    """Counts log records by (level, event); events are few, their names are in the code.

    A filter that lets everything pass, not a handler: whoever reads a line finds it counted already.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Count a record and let it pass."""
        with self._lock:
            self._counts[record.levelname.lower(), getattr(record, "event", record.name)] += 1
        return True

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the counts so far."""
        with self._lock:
            return dict(self._counts)

    def start(self) -> None:
        """Count from now on."""
        logging.getLogger(LOGGER_NAME).addFilter(self)

    def stop(self) -> None:
        """Count no more."""
        logging.getLogger(LOGGER_NAME).removeFilter(self)
