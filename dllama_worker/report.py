"""What a person sees of a node: one line for what happens, a table for the model, a bar while weights load.

On a terminal tables and bars are drawn; elsewhere the same facts are plain log lines. As a
library the project only logs, under the logger ``dllama_worker``.
"""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dllama_proto.exit_codes import ExitCode, error_text, exit_code
from dllama_proto.formatting import format_bytes
from dllama_proto.terminal import Table, Terminal
from dllama_worker.logs import LOGGER_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Report"]

#: Seconds between lines of progress where there is no terminal.
_LINE_INTERVAL = 5.0


class Report:
    """Where a node tells what it does."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        self._log = logging.getLogger(LOGGER_NAME)
        self._terminal = terminal
        self._session: str | None = None

    def begin_session(self) -> None:
        """Put the id of a new session on every line from here on."""
        self._session = secrets.token_hex(4)

    def end_session(self) -> None:
        """Put no session on the lines from here on."""
        self._session = None

    @classmethod
    def for_terminal(cls) -> Report:
        """Draw on standard error where it is a terminal, else only log."""
        if not sys.stderr.isatty():
            return cls()
        return cls(Terminal(sys.stderr))

    def info(self, event: str, message: str, **fields: Any) -> None:
        """Say what happened, in one line."""
        self._log.info(message, extra=self._extra(event, fields))

    def warning(self, event: str, message: str, **fields: Any) -> None:
        """Say what is not as it should be."""
        self._log.warning(message, extra=self._extra(event, fields))

    def error(
        self, event: str, message: str, *, traceback: BaseException | None = None, **fields: Any
    ) -> None:
        """Say what failed; ``traceback`` adds where, which only a bug of ours needs."""
        self._log.error(message, exc_info=traceback, extra=self._extra(event, fields))

    def failure(self, event: str, error: Exception) -> ExitCode:
        """Say what ended the command, a bug with its traceback, and return the exit code; 0 is not told."""
        code = exit_code(error)
        if code is not ExitCode.DONE:
            traceback = error if code is ExitCode.BUG else None
            self.error(event, error_text(error), traceback=traceback, kind=type(error).__name__)
        return code

    def _extra(self, event: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"event": event, "session": self._session, "fields": fields}

    def table(self, event: str, title: str, rows: Mapping[str, str]) -> None:
        """Show named facts."""
        if self._terminal is None:
            facts = ", ".join(f"{name}: {value}" for name, value in rows.items())
            self.info(event, f"{title}: {facts}", **{name.replace(" ", "_"): v for name, v in rows.items()})
            return
        table = Table(title=title, wraps=True)
        for name, value in rows.items():
            table.add(name, value)
        self._terminal.table(table)

    @contextmanager
    def progress(
        self, event: str, title: str, total: int, unit: str = ""
    ) -> Iterator[Callable[[int], None]]:
        """Show how many of ``total`` bytes are done, or of what ``unit`` names.

        Yields what to call with each number of new ones.
        """
        if self._terminal is None:
            yield _Lines(self, event, title, total, unit).advance
            return
        with self._terminal.progress(title, total, unit) as advance:
            yield advance


class _Lines:
    """Progress as a log line now and then."""

    def __init__(self, report: Report, event: str, title: str, total: int, unit: str) -> None:
        self._report, self._event, self._title, self._total = report, event, title, total
        self._unit = unit
        self._done = 0
        self._started = self._told = time.monotonic()

    def advance(self, n: int) -> None:
        self._done += n
        now = time.monotonic()
        if now - self._told < _LINE_INTERVAL:
            return
        self._told = now
        rate = self._done / (now - self._started)
        left = max(0, self._total - self._done) / rate if rate else float("inf")
        self._report.info(
            self._event,
            f"{self._title}: {self._amount(self._done)} of {self._amount(self._total)}, "
            f"{self._amount(rate)}/s, {left:.0f} s left",
            **{self._unit or "bytes": self._done},
            total=self._total,
        )

    def _amount(self, n: float) -> str:
        return f"{n:.0f} {self._unit}" if self._unit else format_bytes(n)
