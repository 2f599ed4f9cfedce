"""Log lines: text for people, JSON for machines, both from the same records.

A record carries ``event`` (a stable name), ``session`` (an id, None between sessions) and ``fields`` (what
belongs to the event) beside its message; never weights or tokens. Messages quote names that other nodes gave.
They are escaped here, on their way out, and nowhere before: whatever is in them, a message stays one line. It is
cut off here as well, and so are a record's fields, if whoever made them has not: no line has more than a few kB.
"""

from __future__ import annotations

import logging
import math
import sys
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TextIO

from dllama_proto.bounded_text import ERROR_LENGTH, shortened
from dllama_proto.json_text import json_text
from dllama_proto.printable import printable
from dllama_proto.terminal import end_running_line

__all__ = ["LOGGER_NAME", "LOG_FORMATS", "LOG_LEVELS", "set_up_logging"]

LOGGER_NAME = "dllama_worker"
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

#: Items of a list or dictionary in a line: as many as a cluster has nodes.
_MAX_ITEMS = 256

#: Lines of a traceback, from its start and as many from its end.
_MAX_TRACEBACK_LINES = 50

#: Characters of the longest escape in JSON, that of a pair of surrogates.
_LONGEST_ESCAPE = 12


def _fit(text: str) -> str:
    """Return a text for a JSON line: cut off where it, or its escapes, would be too long."""
    text = shortened(text, ERROR_LENGTH)
    if text.isascii() and text.isprintable():
        return text
    return (
        text
        if len(json_text(text)) <= 2 * ERROR_LENGTH
        else shortened(text, ERROR_LENGTH // _LONGEST_ESCAPE)
    )


def _plain(value: Any) -> Any:
    """Return a value as a log line has it: NaN and infinities as text, long texts cut off."""
    if isinstance(value, str):
        return _fit(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_fit(str(name)): _plain(item) for name, item in islice(value.items(), _MAX_ITEMS)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value[:_MAX_ITEMS]]
    return value if value is None or isinstance(value, int | float) else _fit(str(value))


def _escaped(text: str) -> str:
    """Return a text in one line of bounded length."""
    return shortened(printable(shortened(text, ERROR_LENGTH)), 2 * ERROR_LENGTH)


def _traceback_lines(text: str) -> list[str]:
    """Return the lines of a traceback; those in the middle of a long one are left out."""
    lines = text.split("\n")
    n_left_out = len(lines) - 2 * _MAX_TRACEBACK_LINES
    if n_left_out <= 0:
        return lines
    return [
        *lines[:_MAX_TRACEBACK_LINES],
        f"({n_left_out:,} lines left out)",
        *lines[-_MAX_TRACEBACK_LINES:],
    ]


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return ``12:30:59 [session] message``; every level but info is named before the message."""
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        session = getattr(record, "session", None)
        text = f"{clock} {f'[{session}] ' if session else ''}{level}{_escaped(record.getMessage())}"
        if record.exc_info:
            # Set in, since a line of a traceback may be a text from elsewhere: it should not look like ours.
            lines = _traceback_lines(self.formatException(record.exc_info))
            text = "\n  ".join([text, *map(_escaped, lines)])
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
            lines = _traceback_lines(self.formatException(record.exc_info))
            return json_text({**_plain(entry), "traceback": "\n".join(map(_fit, lines))})
        return json_text(_plain(entry))


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
