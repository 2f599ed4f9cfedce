"""Log lines: text for people, JSON for machines, both from the same records.

A record carries ``event`` (a stable name), ``session`` (an id, None between sessions) and ``fields`` (what
belongs to the event) beside its message; never weights or tokens. Messages quote names that other nodes gave.
They are escaped here, on their way out, and nowhere before: whatever is in them, a message stays one line.
"""

from __future__ import annotations

import logging
import math
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from dllama_proto.json_text import json_text
from dllama_proto.printable import printable
from dllama_proto.terminal import end_running_line

__all__ = ["LOGGER_NAME", "LOG_FORMATS", "LOG_LEVELS", "set_up_logging"]

LOGGER_NAME = "dllama_worker"
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


def _finite(value: Any) -> Any:
    """Return a value of a log line, NaN and infinities as text, so that the line is still written."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return ``12:30:59 [session] message``; every level but info is named before the message."""
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        session = getattr(record, "session", None)
        text = f"{clock} {f'[{session}] ' if session else ''}{level}{printable(record.getMessage())}"
        if record.exc_info:
            # Set in, since a line of a traceback may be a text from elsewhere: it should not look like ours.
            lines = self.formatException(record.exc_info).split("\n")
            text = "\n  ".join([text, *map(printable, lines)])
        return text


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return one JSON object: time (UTC), level, event, session, message, then the event's own fields."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "session": getattr(record, "session", None),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json_text(_finite(entry), default=str)


class _LineHandler(logging.StreamHandler[TextIO]):
    """A handler whose lines begin at the left, also while text is shown that stands in the middle of a line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. As every handler, it tells of its own errors itself."""
        end_running_line(self.stream)
        super().emit(record)


def set_up_logging(level: str, log_format: str) -> None:
    """Send this project's log lines to standard error; what other libraries log is left alone."""
    logger = logging.getLogger(LOGGER_NAME)
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
