"""What a worker logs: which session a line belongs to, and nothing of what was computed."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
import socket
from typing import Any

import pytest

from dllama_worker.logs import LOGGER_NAME, set_up_logging
from dllama_worker.report import Report
from tests.helpers.captures import Session, load
from tests.helpers.processes import worker_process
from tests.worker.replay import play, read_recording

CASE = "tiny-q40-2n"

#: What differs between two equal sessions: when, how fast, from which port.
_VOLATILE = {
    "time",
    "session",
    "tokens_per_second",
    "op_seconds",
    "sync_seconds",
    "root",
    "available",
    "limit",
}


def with_other_contents(session: Session) -> Session:
    """The same session with other bytes in the last weight and in the first activations."""
    stream = session.stream(0, 1)
    data = bytearray(stream.data)
    before = stream.bytes_before_inference
    for at in [*range(before - 5000, before - 1000), *range(before + 8, before + 108)]:
        data[at] ^= 0x01
    assert data != stream.data
    changed = dataclasses.replace(stream, data=bytes(data))
    return dataclasses.replace(
        session, streams=tuple(changed if other is stream else other for other in session.streams)
    )


def lasting(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in entry.items() if name not in _VOLATILE}
    return {**kept, "message": re.sub(r"\d+\.\d+( [kMG]?B)?|:\d+", "#", entry["message"])}


@pytest.mark.slow
def test_lines_carry_their_session_and_nothing_of_its_contents() -> None:
    session = load(CASE)
    recording = read_recording(session, 1)
    with worker_process("--log-level", "debug") as worker:
        for played in (session, with_other_contents(session)):
            play(played, recording, worker.port)
            worker.wait_for("session_ended")
        with socket.create_connection(("127.0.0.1", worker.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            worker.wait_for("turned_away")
        assert worker.terminate() == 0
    by_session: dict[str | None, list[dict[str, Any]]] = {}
    for entry in worker.log:
        by_session.setdefault(entry["session"], []).append(entry)
    outside = by_session.pop(None)
    assert {"listening", "turned_away", "stopped"} <= {entry["event"] for entry in outside}
    first, second = by_session.values()
    assert [entry["event"] for entry in first][0 :: len(first) - 1] == ["root_connected", "session_ended"]
    assert [lasting(entry) for entry in first] == [lasting(entry) for entry in second]


@pytest.fixture
def restored_logger() -> Any:
    logger = logging.getLogger(LOGGER_NAME)
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_both_formats_name_the_session(
    log_format: str, restored_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    set_up_logging("info", log_format)
    report = Report()
    report.info("before", "before")
    report.begin_session()
    report.warning("within", "within", answer=42)
    report.end_session()
    report.info("after", "after")
    lines = said.getvalue().splitlines()
    if log_format == "json":
        before, within, after = (json.loads(line) for line in lines)
        assert (before["session"], after["session"]) == (None, None)
        assert re.fullmatch(r"[0-9a-f]{8}", within["session"])
        assert within["answer"] == 42
    else:
        patterns = (r"\S+ before", r"\S+ \[[0-9a-f]{8}\] warning: within", r"\S+ after")
        for line, pattern in zip(lines, patterns, strict=True):
            assert re.fullmatch(pattern, line)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_names_from_the_wire_forge_no_line(
    log_format: str, restored_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    set_up_logging("info", log_format)
    Report().warning("lost", "lost \x1b[2Jnode\n12:00:00 all is well \udcff", node="\n\udcff")
    line = said.getvalue().removesuffix("\n")
    assert line.isprintable()
    line.encode()
    assert r"lost \x1b[2Jnode\n12" in line or r"lost \u001b[2Jnode\n12" in line


def test_a_json_line_is_whole_whatever_its_fields_hold(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger(LOGGER_NAME)
    kept = logger.handlers[:], logger.level, logger.propagate
    set_up_logging("info", "json")
    try:
        fields = {"rate": float("nan"), "rates": [float("inf"), 1.5], "name": "a\udcff\n"}
        logger.info("op \udcff", extra={"event": "odd", "fields": fields})
    finally:
        logger.handlers[:], logger.level, logger.propagate = kept
    line = capsys.readouterr().err.encode("utf-8")
    entry = json.loads(line, parse_constant=pytest.fail)
    assert entry["message"] == r"op \udcff"
    assert (entry["rate"], entry["rates"], entry["name"]) == ("nan", ["inf", 1.5], "a\\udcff\n")
