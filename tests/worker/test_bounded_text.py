"""Whatever a root sends, a worker's log lines are short, and refusing it takes little memory."""

from __future__ import annotations

import io
import json
import logging
import socket
import struct
import sys
from pathlib import Path

import pytest

from dllama_proto.bounded_text import ERROR_LENGTH
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.exit_codes import error_text
from dllama_worker.errors import UsageError
from dllama_worker.logs import LOG_FORMATS, LOGGER_NAME, set_up_logging
from dllama_worker.report import Report
from dllama_worker.worker.farewell import refusal
from tests.helpers.many_ops import MAX_OPS, said, unlike_rows
from tests.helpers.processes import WorkerProcess, worker_process

_MIB = 1 << 20

#: A line of a log: as much as a person may read.
_LINE_BYTES = 8_000

#: A refused config of 65,536 ops and everything that was made of it; its records take most of that.
_CONFIG_BYTES = 128 * _MIB


def _peak(worker: WorkerProcess) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _say(worker: WorkerProcess, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", worker.port), timeout=60) as root:
        root.sendall(data)
        return b"".join(iter(lambda: root.recv(1 << 16), b""))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("n_ops", "name"),
    [(MAX_OPS, "\x1b" * 200), (100, "\U000e0001" * 60), (1, "x")],
    ids=["controls", "tags", "short"],
)
def test_a_config_with_faults_in_every_op_is_refused_in_a_line(n_ops: int, name: str) -> None:
    with worker_process() as worker:
        before = _peak(worker)
        answer = _say(worker, said(unlike_rows(n_ops, name)))
        entry = worker.wait_for("session_failed")
        taken = _peak(worker) - before
    assert entry["kind"] == "ConfigRejected"
    assert f"has {2 * n_ops} faults: " in entry["message"]
    assert n_ops == 1 or f"and {2 * n_ops - 5:,} more" in entry["message"]
    assert len(json.dumps(entry)) < _LINE_BYTES
    assert len(answer) < _LINE_BYTES
    assert taken < _CONFIG_BYTES, taken


@pytest.mark.slow
def test_a_name_of_a_megabyte_is_refused_by_its_length() -> None:
    data = said(unlike_rows(1, "y" * 100))
    at = data.rindex(b"y" * 100) - 4
    long = data[:at] + struct.pack("<I", _MIB + 1) + b"y" * _MIB + data[at + 104 :]
    with worker_process() as worker:
        answer = _say(worker, long)
        entry = worker.wait_for("session_failed")
    assert "expected a string of 1 to 255 bytes, got 1048577" in entry["message"]
    assert len(json.dumps(entry)) < _LINE_BYTES
    assert len(answer) < _LINE_BYTES


# Where texts pass that nobody has cut ------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "\x1b", "é", "\U0001f600", "\U000e0001", "\udcff"])
@pytest.mark.parametrize("log_format", LOG_FORMATS)
def test_no_log_line_is_long(log_format: str, letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    logger = logging.getLogger(LOGGER_NAME)
    before = logger.handlers[:], logger.level, logger.propagate
    text = letter * _MIB
    try:
        set_up_logging("info", log_format)
        Report().warning(
            "event", text, reason=text, names=[text], facts={text: {"inner": text}}, other=Path(text)
        )
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    assert shown.getvalue().count("\n") == 1
    assert len(shown.getvalue()) < 8 * _LINE_BYTES


@pytest.mark.parametrize("log_format", LOG_FORMATS)
def test_a_traceback_is_bounded_as_well(log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    logger = logging.getLogger(LOGGER_NAME)
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        set_up_logging("info", log_format)
        error = ValueError("\n".join(["z" * 5_000] * 5_000))
        Report().error("session_failed", str(error), traceback=error)
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    assert "lines left out" in shown.getvalue()
    assert len(shown.getvalue()) < 250_000


@pytest.mark.parametrize("error", [UsageError("x" * _MIB), ValueError("x" * _MIB), OSError(2, "x" * _MIB)])
def test_an_error_ends_a_command_in_a_short_line(error: Exception) -> None:
    assert len(error_text(error)) <= ERROR_LENGTH


def test_an_error_of_the_protocol_is_short_whatever_came() -> None:
    text = "x" * _MIB
    error = RemoteProtocolError(text, expected=text, got=text, hint=text)
    assert len(str(error)) < _LINE_BYTES
    assert error.got.endswith("…")


def test_a_reason_to_refuse_fits_the_message() -> None:
    for text in ("x" * _MIB, "\x1b" * _MIB):
        assert len(refusal(text).reason) == 1_000
