"""Texts from others on their way through worker, root and kernels: what is shown is printable, and nothing forged.

``tests/proto/show/test_hostile_names.py`` has the same of ``dllama-proto``.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dllama_ops import BaseKernel, build_kernel_table, hookimpl
from dllama_ops.bench import model_shape, workloads
from dllama_ops.bench.measure import Measurement
from dllama_ops.bench.report import as_json as bench_as_json
from dllama_ops.bench.report import as_text as bench_as_text
from dllama_ops.check import run_suite, select
from dllama_ops.check.report import print_report, report_as_json
from dllama_ops.listing import print_table, table_as_json, table_as_text
from dllama_proto import cli as proto_cli
from dllama_proto.enums import OpCode, OpQuantType
from dllama_proto.exit_codes import ExitCode, tell
from dllama_proto.terminal import RunningText, Terminal
from dllama_worker import __main__ as worker_cli
from dllama_worker.doctor import cli as doctor_cli
from dllama_worker.doctor.finding import Finding, Grade
from dllama_worker.doctor.report import print_findings, print_findings_as_json
from dllama_worker.logs import LOGGER_NAME, set_up_logging
from dllama_worker.monitoring.messages import MessageCounts
from dllama_worker.report import Report
from dllama_worker.root import cli as root_cli
from tests.helpers.captures import GOLDEN, Session, load
from tests.helpers.hostile import HOSTILE, HOSTILE_FILE_NAME, check_json, check_lines
from tests.helpers.processes import worker_process
from tests.ops.plugins import manager, reference
from tests.worker.replay import play, read_recording

ROOT = Path(__file__).parents[1]


# Command lines ------------------------------------------------------------------------------------------

Main = Callable[[Sequence[str]], object]

#: Those that a system can pass to a program. It can no NUL, and of surrogates only those that stand for a byte.
ARGUMENTS = [text.replace("\ud83d", "") for text in HOSTILE if "\0" not in text and not text.isprintable()]


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (proto_cli.main, ["{}"]),
        (proto_cli.main, ["dissect", "x", "{}"]),
        (proto_cli.main, ["dissect", "x", "--link={}"]),
        (proto_cli.main, ["tap", "--listen", "{}", "--to", "a:1"]),
        (worker_cli.main, ["{}"]),
        (worker_cli.main, ["--kernels={}"]),
        (worker_cli.main, ["--host={}"]),
        (worker_cli.main, ["--allow", "{}"]),
        (worker_cli.main, ["--log-level={}"]),
        (worker_cli.main, ["--config={}"]),
        (doctor_cli.main, ["--peer={}"]),
        (root_cli.main, ["{}"]),
        (root_cli.main, ["plan", "--model={}", "--nodes", "2"]),
        (root_cli.main, ["plan", "{}"]),
        (root_cli.main, ["inference", "--workers={}"]),
        (root_cli.main, ["inference", "--model={}", "--tokenizer=x", "--prompt=x"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ARGUMENTS)
def test_a_wrong_argument_is_told_in_printable_lines(
    main: Main, arguments: Sequence[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([word.replace("{}", text) for word in arguments])
    except SystemExit as end:
        code = end.code
    assert code == ExitCode.CALLER
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err
    check_lines(captured.err)


def test_a_bug_is_told_with_a_traceback_that_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("".join(HOSTILE))
    assert tell("dllama-root", caught.value) is ExitCode.BUG
    told = capsys.readouterr().err
    check_lines(told)
    assert told.startswith("Traceback (most recent call last):\n")
    assert all(line.startswith("  ") for line in told.splitlines()[1:-1])
    assert told.splitlines()[-1].startswith("dllama-root: error: a bug of this program")


# Kernels ------------------------------------------------------------------------------------------------


class Raises(BaseKernel):
    """A kernel that has a hostile name, and fails with a hostile error."""

    def forward(self, batch_size: int) -> None:
        raise RuntimeError("".join(HOSTILE))


Raises.__qualname__ = "".join(HOSTILE)


class Hostile:
    """A plugin with that kernel."""

    @hookimpl
    def dllama_register_kernels(self, register: Any) -> None:
        register(OpCode.MUL, OpQuantType.F32_F32_F32, Raises, variant="[red]\x1b[31m\u202e\udcff")


class Broken:
    """A plugin that fails with a hostile error."""

    @hookimpl
    def dllama_register_kernels(self, register: Any) -> None:
        raise RuntimeError("".join(HOSTILE))


PLUGINS = {"numpy": reference(), "[bold]\x1b": Hostile(), "b\nfakeline": Broken()}


def test_kernels_are_listed_in_printable_lines() -> None:
    table = build_kernel_table(manager(**PLUGINS))
    text = table_as_text(table)
    check_lines(text)
    assert r"[bold]\x1b:[red]\x1b[31m\u202e\udcff" in text
    [listing] = check_json(compact(table_as_json(table)))
    assert r"b" + "\nfakeline" in [failure["plugin"] for failure in listing["broken"]]


def test_kernels_are_listed_on_a_terminal_as_they_are_called() -> None:
    table = build_kernel_table(manager(**PLUGINS))
    shown = on_a_terminal(lambda: print_table(table))
    assert "[red]" in shown
    check_terminal(shown)


def test_what_is_wrong_with_a_kernel_is_told_in_printable_lines() -> None:
    selection = select(manager(**PLUGINS))
    selection = replace(
        selection, entries=tuple(entry for entry in selection.entries if entry.plugin != "numpy")
    )
    report = run_suite(selection, 1, 0)
    assert report.broken
    shown = io.StringIO()
    print_report(report, shown)
    check_lines(shown.getvalue())
    assert r"[bold]\x1b:[red]\x1b[31m\u202e\udcff" in shown.getvalue()
    check_terminal(on_a_terminal(lambda: print_report(report)))
    [found] = check_json(compact(report_as_json(report)))
    assert not found["passed"]


def test_kernels_are_measured_in_printable_lines() -> None:
    workload = next(workloads(model_shape("llama-3.2-1b"), 1, 0))
    measured = [Measurement(workload, name, 1.0, 1.0) for name in HOSTILE]
    check_lines(bench_as_text(measured, 10.0))
    [found] = check_json(compact(bench_as_json(measured, 10.0, model="".join(HOSTILE))))
    assert len(found["results"]) == len(HOSTILE)


# Worker -------------------------------------------------------------------------------------------------

CASE = "tiny-q40-2n"

#: Names of the recording and others of the same length: all that a worker is told of its ops, pipes and buffers.
_NAMES = {
    b"block_cast_x\0": b"\x1b[31m\n_fakex\0",
    b"final_norm\0": b"\xe2\x80\xaegnirts\xff\0",
    b"ZQ\0": b"\x1b[\0",
    b"POS\0": b"[/]\0",
    b"LG\0": b"\r\xff\0",
}


def hostile_session() -> Session:
    """A recorded session with hostile names instead of its own."""
    session = load(CASE)
    stream = session.stream(0, 1)
    data = stream.data
    for name, other in _NAMES.items():
        assert name in data
        assert len(name) == len(other)
        data = data.replace(name, other)
    changed = replace(stream, data=data)
    return replace(
        session, streams=tuple(changed if other is stream else other for other in session.streams)
    )


@pytest.mark.slow
def test_a_worker_logs_and_counts_whatever_its_configuration_names() -> None:
    session = hostile_session()
    with worker_process("--log-level", "debug", "--metrics-port", "0") as worker:
        metrics = worker.wait_for("metrics")
        # Whoever hangs up first is told by name, whoever says another name than the configuration as well.
        play(session, read_recording(session, 1), worker.port)
        worker.wait_for("session_ended", "session_failed")
        renamed = replace(
            session,
            streams=tuple(
                replace(
                    stream,
                    data=last_replaced(stream.data, b"\x80\xaegnirts\xff\0", b"\x80\xaegnirtx\xff\0"),
                )
                if (stream.sender, stream.receiver) == (0, 1)
                else stream
                for stream in session.streams
            ),
        )
        call(worker.port, renamed.data(0, 1))
        failed = worker.wait_for("session_failed")
        assert "gnirtx" in failed["message"]
        with urlopen(f"http://127.0.0.1:{metrics['port']}/metrics", timeout=30) as answer:
            text = answer.read().decode("utf-8")
        assert worker.terminate() == 0
    check_lines(text)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert all(label.isprintable() for label in sample.labels.values())
    for entry in worker.log:
        json.dumps(entry, ensure_ascii=False).encode("utf-8")  # raises for a lone surrogate


def last_replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    before, found, after = data.rpartition(old)
    assert found
    return before + new + after


def call(port: int, data: bytes) -> None:
    """Say all that a root says, whatever the answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as root:
        try:
            root.sendall(data)
            root.shutdown(socket.SHUT_WR)
            while root.recv(1 << 16):
                pass
        except OSError:
            return  # it has hung up on us


@pytest.fixture
def restored_logger() -> Iterator[None]:
    logger = logging.getLogger(LOGGER_NAME)
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.usefixtures("restored_logger")
def test_any_text_is_logged_in_one_line(
    log_format: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("debug", log_format)
    report = Report()
    counts = MessageCounts()
    counts.start()
    try:
        report.info("told", text, node=text, nested={text: [text]})
        report.table("facts", text, {text: text})
        report.failure("failed", RuntimeError(text))
    finally:
        counts.stop()
    lines = capsys.readouterr().err
    check_lines(lines)
    if log_format == "json":
        assert len(check_json(lines)) == 3
    else:
        assert all(re.match(r"\d\d:\d\d:\d\d |  ", line) for line in lines.splitlines())
    assert {event for _, event in counts.counts()} == {"told", "facts", "failed"}


@pytest.mark.parametrize("text", HOSTILE)
def test_the_doctor_tells_in_printable_lines(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding(text, text, Grade.WARNING, text, {"fact": text})]
    print_findings(findings)
    check_lines(capsys.readouterr().out)
    print_findings_as_json(findings)
    [[found]] = check_json(compact(capsys.readouterr().out))
    assert found["grade"] == "warning"


# Root ---------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model under a hostile name."""
    path = tmp_path / f"{HOSTILE_FILE_NAME}.m"
    shutil.copy(GOLDEN / "models" / "tiny-q40.m", path)
    return str(path)


def test_a_plan_names_its_file_in_printable_lines(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root_cli.main(["plan", "--model", model, "--nodes", "2"]) == 0
    text = capsys.readouterr().out
    check_lines(text)
    assert r"a\nfakeline\x1b[31m\u202e\udcff[red]" in text
    assert root_cli.main(["plan", "--json", "--model", model, "--nodes", "2"]) == 0
    [found] = check_json(compact(capsys.readouterr().out))
    assert found["model"] == model.replace("\udcff", r"\udcff")


#: What a person may pass as a prompt, though not every character of it is text.
PROMPT = b"ROMEO:\x1b[31m\xe2\x80\xae\xc2\x9b\xff[red]\n\tx"


def generate(*arguments: str, output: int) -> subprocess.CompletedProcess[bytes]:
    """Continue the prompt, with standard output at a descriptor."""
    command = [
        sys.executable,
        "-m",
        "dllama_worker.root",
        "inference",
        "--steps",
        "40",
        "--temperature",
        "0",
    ]
    return subprocess.run(
        [*command, *arguments, "--prompt", PROMPT],
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.PIPE,
        timeout=60,
        check=True,
    )


@pytest.mark.slow
def test_generated_text_is_shown_on_a_terminal_and_kept_in_a_pipe() -> None:
    piped = generate(output=subprocess.PIPE).stdout
    assert piped.startswith(PROMPT)
    shown = shown_on_a_terminal(lambda end: generate(output=end))
    assert shown.startswith("ROMEO:\\x1b[31m\\u202e\\x9b\ufffd[red]\r\n\tx")
    check_steered_only_by_lines(shown)
    [found] = check_json(generate("--json", output=subprocess.PIPE).stdout.decode())
    assert found["prompt"].startswith("ROMEO:\x1b[31m\u202e\x9b\\udcff[red]\n\tx")


# Text that a model writes -------------------------------------------------------------------------------


def on_a_terminal(show: Callable[[], object]) -> str:
    """What is shown by a call that prints to standard output, where that is a terminal."""

    def redirected(end: int) -> None:
        with (
            os.fdopen(os.dup(end), "w", encoding="utf-8") as terminal,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr("sys.stdout", terminal)
            patch.setenv("TERM", "xterm")
            patch.delenv("NO_COLOR", raising=False)
            show()

    return shown_on_a_terminal(redirected)


def shown_on_a_terminal(show: Callable[[int], object]) -> str:
    """What comes out of a terminal whose other end ``show`` is given."""
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # Linux tells the end so
                return
            if not piece:
                return
            pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        show(theirs)
    finally:
        os.close(theirs)
        reader.join(30)
        os.close(ours)
    return b"".join(pieces).decode("utf-8")


def check_terminal(shown: str) -> None:
    """Check that only the colours of a table steer the terminal; a forged line begins no line."""
    check_lines(re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r\n", "\n"))


def check_steered_only_by_lines(shown: str) -> None:
    for line in shown.replace("\r\n", "\n").replace("\t", " ").split("\n"):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line), ascii(line)


@pytest.mark.parametrize("text", HOSTILE)
def test_model_text_cannot_steer_a_terminal(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")

    def show(end: int) -> None:
        with os.fdopen(os.dup(end), "w", encoding="utf-8") as terminal:
            running = RunningText(terminal)
            for i in range(len(data)):  # as tokens come: they may end inside a character
                running.write(data[i : i + 1])
            running.write(b" end")

    shown = shown_on_a_terminal(show)
    check_steered_only_by_lines(shown)
    assert shown.endswith(" end")


def test_raw_text_is_the_terminals_to_obey() -> None:
    def show(end: int) -> None:
        with os.fdopen(os.dup(end), "w", encoding="utf-8") as terminal:
            RunningText(terminal, raw=True).write(b"\x1b[1mbold\x1b[0m")

    assert shown_on_a_terminal(show) == "\x1b[1mbold\x1b[0m"


@given(st.lists(st.binary(max_size=8)))
def test_a_pipe_gets_every_byte(pieces: list[bytes]) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    running = RunningText(file)
    for piece in pieces:
        running.write(piece)
    assert file.buffer.getvalue() == b"".join(pieces)


@pytest.mark.parametrize("text", HOSTILE)
def test_progress_is_titled_by_a_printable_text(text: str) -> None:
    def show() -> None:
        with Terminal().progress(text, 10) as advance:
            advance(10)

    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", on_a_terminal(show))
    check_lines(shown.replace("\r", "\n"))


def compact(text: str) -> str:
    """JSON over several lines as one line; JSON itself has no line breaks within texts."""
    return text.replace("\n", "")
