"""Real processes of every command, ended in every way there is: the exit code, and what they say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dllama_proto.exit_codes import AMISS, ExitCode
from tests.helpers.captures import GOLDEN, capture_path
from tests.helpers.packets import golden_packets, pcap
from tests.ops.plugins import install

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MODEL = str(GOLDEN / "models/tiny-q40.m")
CAPTURE = str(capture_path("tiny-q40-2n"))
NOT_A_FILE = "/nonexistent/folder/file"
FULL = "/dev/full"
PROGRAMS = {
    "dllama-proto": "dllama_proto",
    "dllama-ops": "dllama_ops",
    "dllama-worker": "dllama_worker",
    "dllama-root": "dllama_worker.root",
}
PLAN = ["plan", "--model", "gqa", "--nodes", "2"]
CHECK = "dllama_worker.doctor.machine_checks.check_machine"
INFERENCE = "dllama-root inference --prompt x --steps 8"


def command_of(line: str) -> list[str]:
    program, *arguments = line.split()
    return [sys.executable, "-m", PROGRAMS[program], *arguments]


def run(line: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_of(line),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_into(output: int, line: str) -> tuple[int, str]:
    """Run a command with standard output at a descriptor; return its exit code and what it says."""
    done = subprocess.run(
        command_of(line),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def check_one_line(said: str, complaint: str) -> None:
    """One error is told, in one line that has the complaint; what was logged before it is no error."""
    errors = [line for line in said.splitlines() if "error: " in line]
    assert len(errors) == 1, said
    assert re.search(complaint, errors[0]), said
    assert "Traceback" not in said


# 2: the caller ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (f"dllama-proto dissect {NOT_A_FILE}", f"^dllama-proto dissect: error: {NOT_A_FILE}: No such file"),
        ("dllama-proto dissect README.md", "README.md at byte 0: expected a pcap or pcapng file"),
        ("dllama-proto dissect docs", "docs: Is a directory"),
        (f"dllama-proto dissect --tokenizer {MODEL} {CAPTURE}", f"{MODEL}: TokenizerFile.magic at byte 0"),
        (f"dllama-proto diff {CAPTURE} {NOT_A_FILE}", f"^dllama-proto diff: error: {NOT_A_FILE}: No such file"),
        ("dllama-proto inspect README.md", "^dllama-proto inspect: error: README.md: ModelHeader.magic at byte 0"),
        (f"dllama-proto inspect {MODEL} --nodes 3", "3 nodes cannot share this model evenly"),
        (f"dllama-proto timeline {CAPTURE} -o {NOT_A_FILE}", f"{NOT_A_FILE}: No such file"),
        (f"dllama-proto report {CAPTURE} -o {NOT_A_FILE}", f"{NOT_A_FILE}: No such file"),
        (f"dllama-proto tap --listen :0 --to :1 --record {NOT_A_FILE}", f"{NOT_A_FILE}: No such file"),
        ("dllama-proto tap --listen :0 --to :1 --frobnicate", "unrecognized arguments: --frobnicate"),
        ("dllama-ops list --kernels nosuch", "^dllama-ops list: error: argument --kernels: .*'nosuch'"),
        ("dllama-ops check nosuch", "^dllama-ops check: error: .*'nosuch'"),
        ("dllama-ops bench --model nosuch", "bench: error: argument --model: expected one of tiny, .*'nosuch'"),
        ("dllama-worker --model " + NOT_A_FILE, f"{NOT_A_FILE}: cannot be read as a model: No such file"),
        (f"dllama-worker --trace {NOT_A_FILE}", f"cannot write the trace: {NOT_A_FILE}: No such file"),
        ("dllama-worker --max-memory much", "expected a number of bytes like 8G or 500M, got 'much'"),
        ("dllama-worker doctor --max-memory 8X", "^dllama-worker doctor: error: .* got '8X'"),
        (f"{INFERENCE} --model {NOT_A_FILE} --tokenizer {NOT_A_FILE}", f"{NOT_A_FILE}: cannot be read as a model"),
        (f"{INFERENCE} --model {MODEL} --tokenizer {MODEL}", "TokenizerFile.magic at byte 0"),
        (f"{INFERENCE} --trace {NOT_A_FILE}", f"cannot write the trace: {NOT_A_FILE}: No such file"),
        (f"{INFERENCE} --memory much", "expected bytes for each node like 8G:500M"),
        (f"{INFERENCE} --memory 1M", "memory"),
        (f"dllama-root plan --model {NOT_A_FILE} --nodes 2", "^dllama-root plan: error: .*neither a file nor"),
        ("dllama-root plan --model gqa --nodes 9", "^dllama-root plan: error: 9 computing nodes cannot share"),
    ],
)  # fmt: skip
def test_what_the_caller_can_mend_ends_with_2(line: str, complaint: str) -> None:
    done = run(line)
    check_one_line(done.stderr, complaint)
    assert done.returncode == ExitCode.CALLER


def test_the_doctor_finds_what_the_worker_would_say() -> None:
    done = run(f"dllama-worker doctor --port 0 --model {NOT_A_FILE}")
    assert (done.returncode, done.stderr) == (ExitCode.CALLER, "")
    assert f"{NOT_A_FILE}: cannot be read as a model: No such file" in done.stdout


def test_a_bad_file_does_not_hide_a_good_one() -> None:
    done = run(f"dllama-proto inspect {NOT_A_FILE} {MODEL}")
    assert done.returncode == ExitCode.CALLER
    assert "block_matmul_wo" in done.stdout


@pytest.fixture
def clashing(tmp_path: Path) -> dict[str, str]:
    """The environment of an installation with two plugins that offer the same."""
    source = (
        "from dllama_ops import BaseKernel, hookimpl\n"
        "from dllama_proto.enums import OpCode, OpQuantType\n"
        "@hookimpl\n"
        "def dllama_register_kernels(register):\n"
        "    register(OpCode.MUL, OpQuantType.F32_F32_F32, BaseKernel)\n"
    )
    for name in ("first", "second"):
        install(tmp_path, name, f"clashing_{name}", source)
    return {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}


@pytest.mark.parametrize(
    "line", ["dllama-ops list", "dllama-ops bench --model tiny", "dllama-worker --port 0", INFERENCE]
)
def test_clashing_plugins_end_every_command_with_2(line: str, clashing: dict[str, str]) -> None:
    done = run(line, clashing)
    check_one_line(done.stderr, "plugins 'first' and 'second' both offer a kernel for MUL")
    assert done.returncode == ExitCode.CALLER


def test_the_doctor_finds_clashing_plugins(clashing: dict[str, str]) -> None:
    done = run("dllama-worker doctor --port 0 --json", clashing)
    assert (done.returncode, done.stderr) == (ExitCode.CALLER, "")
    assert "plugins 'first' and 'second' both offer a kernel for MUL" in done.stdout


# 3: another node -------------------------------------------------------------------------------------------


def test_a_worker_out_of_reach_ends_the_root_with_3() -> None:
    done = run(f"{INFERENCE} --workers 127.0.0.1:9")
    check_one_line(done.stderr, r"lost node 1 \(127\.0\.0\.1:9\) cannot be reached: Connection refused")
    assert done.returncode == ExitCode.PEER


def test_something_else_than_a_worker_ends_the_root_with_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        line = f"{INFERENCE} --workers 127.0.0.1:{stranger.getsockname()[1]}"
        root = subprocess.Popen(command_of(line), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        caller, _ = stranger.accept()
        with caller:
            caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            said = root.communicate(timeout=60)[1]
    check_one_line(said, "expected ")
    assert root.returncode == ExitCode.PEER


def test_a_peer_out_of_reach_ends_the_doctor_with_3() -> None:
    done = run("dllama-worker doctor --port 0 --peer 127.0.0.1:9 --connect")
    assert (done.returncode, done.stderr) == (ExitCode.PEER, "")
    assert "Connection refused" in done.stdout


def test_a_root_that_breaks_the_protocol_ends_a_worker_that_serves_once_with_3() -> None:
    worker = subprocess.Popen(
        command_of("dllama-worker --port 0 --once"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert worker.stderr is not None
    port = re.search(r"listening on 127\.0\.0\.1:(\d+)", worker.stderr.readline())
    assert port is not None
    with socket.create_connection(("127.0.0.1", int(port[1])), timeout=30) as root:
        root.sendall(bytes([1, 0, 0, 0, 0, 0, 0, 0]))  # a greeting: one connection, worker 0
        assert len(root.recv(4)) == 4
        root.sendall(b"\xff" * 64)
        said = worker.communicate(timeout=60)[1]
    assert "session ended: " in said
    assert worker.returncode == ExitCode.PEER


# 4: the machine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "dllama-worker --port {port}",
        "dllama-worker --port 0 --metrics-port {port}",
        "dllama-proto tap --listen :{port} --to 127.0.0.1:9 --quiet",
    ],
)
def test_a_port_in_use_ends_with_4(line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(line.format(port=port))
    check_one_line(
        done.stderr, rf"cannot listen on 127\.0\.0\.1:{port}.*: Address already in use; choose another"
    )
    assert done.returncode == ExitCode.MACHINE


def test_a_port_in_use_ends_the_doctor_with_4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(f"dllama-worker doctor --port {taken.getsockname()[1]}")
    assert (done.returncode, done.stderr) == (ExitCode.MACHINE, "")
    assert ": Address already in use  " in done.stdout


#: Commands that write to standard output, and soon end by themselves.
WRITERS = (
    "dllama-proto wireshark",
    f"dllama-proto inspect {MODEL}",
    f"dllama-proto dissect --json {CAPTURE}",
    "dllama-ops list",
    "dllama-worker doctor --port 0",
    "dllama-root plan --model gqa --nodes 2",
    "dllama-root plan --model gqa --nodes 2 --json",
    INFERENCE,
)


@pytest.mark.skipif(not Path(FULL).exists(), reason="needs /dev/full (Linux)")
@pytest.mark.parametrize("line", WRITERS)
def test_a_full_disk_ends_with_4(line: str) -> None:
    with Path(FULL).open("wb") as full:
        code, said = run_into(full.fileno(), line)
    check_one_line(said, "No space left on device")
    assert code == ExitCode.MACHINE


@pytest.mark.skipif(not Path(FULL).exists(), reason="needs /dev/full (Linux)")
def test_a_trace_on_a_full_disk_ends_with_one_warning_and_the_text_goes_on() -> None:
    done = run(f"{INFERENCE} --seed 1 --trace {FULL}")
    warnings = [line for line in done.stderr.splitlines() if "warning: " in line]
    assert [line.partition("warning: ")[2] for line in warnings] == [
        f"cannot write {FULL}: No space left on device; no more is traced"
    ]
    assert done.stdout == run(f"{INFERENCE} --seed 1").stdout
    assert done.returncode == ExitCode.DONE


# 0: nobody reads any more, or somebody stops what would go on -----------------------------------------------


@pytest.mark.parametrize("line", [*WRITERS, "dllama-proto --help", "dllama-worker --help"])
def test_a_reader_who_left_is_no_failure(line: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, said = run_into(writing, line)
    finally:
        os.close(writing)
    assert code == ExitCode.DONE
    assert "error" not in said
    assert "Broken pipe" not in said
    assert "Traceback" not in said


def test_head_has_seen_enough() -> None:
    pipeline = (
        f"{' '.join(command_of('dllama-proto dissect -x ' + CAPTURE))} | head -1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", pipeline], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    first, code = done.stdout.splitlines()
    assert first.startswith(CAPTURE)
    assert (int(code), done.stderr) == (ExitCode.DONE, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "line", ["dllama-worker --port 0", "dllama-proto tap --listen 127.0.0.1:0 --to 127.0.0.1:9 --quiet"]
)
def test_what_runs_until_it_is_stopped_ends_with_0(line: str, number: int) -> None:
    code, said = stopped(line, "listening on ", number)
    assert code == ExitCode.DONE
    assert "error" not in said


# 130: Ctrl-C -----------------------------------------------------------------------------------------------


def stopped(
    line: str, sign: str, number: int = signal.SIGINT, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Start a command, wait until it says something on standard error, signal it; return how it ended."""
    process = subprocess.Popen(
        command_of(line),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    said = b""
    while sign.encode() not in said:
        piece = os.read(process.stderr.fileno(), 4096)
        assert piece, said.decode()
        said += piece
    process.send_signal(number)
    said += process.stderr.read()
    process.stderr.close()
    process.stdin.close()
    return process.wait(60), said.decode()


#: Loads whatever a command needs, then says so: from here on Ctrl-C finds a command, and no import.
ANNOUNCING = """
import sys
from unittest.mock import patch
def announce(*arguments, **options):
    print("ready", file=sys.stderr, flush=True)
    import time
    while True:
        time.sleep(1)
"""


@pytest.mark.parametrize(
    ("replaced", "main", "arguments"),
    [
        ("dllama_proto.show.commands.run_dissect", "dllama_proto.cli", ["dissect", "-"]),
        ("dllama_proto.show.inspect_files.run_inspect", "dllama_proto.cli", ["inspect", MODEL]),
        ("dllama_ops.listing.print_table", "dllama_ops.cli", ["list"]),
        ("dllama_ops.check.run_suite", "dllama_ops.cli", ["check"]),
        ("dllama_worker.worker.worker.Worker", "dllama_worker.__main__", ["--port", "0"]),
        (CHECK, "dllama_worker.__main__", ["doctor"]),
        ("dllama_worker.root.planning.command.make_plan", "dllama_worker.root.cli", PLAN),
        ("dllama_worker.root.run.open_session", "dllama_worker.root.cli", ["inference", "--prompt", "x"]),
    ],
)  # fmt: skip
def test_ctrl_c_ends_with_130_and_says_nothing(replaced: str, main: str, arguments: Sequence[str]) -> None:
    code = (
        f"{ANNOUNCING}\nfrom {main} import main\n"
        f"with patch({replaced!r}, announce):\n    sys.exit(main({arguments!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == ExitCode.INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_chat_that_is_broken_off_ends_with_130(number: int) -> None:
    code, said = stopped("dllama-root chat --chat-template llama3", "weights loaded", number)
    assert code == ExitCode.INTERRUPTED
    assert "error" not in said
    assert "Traceback" not in said


def test_ctrl_c_while_other_nodes_are_measured(tmp_path: Path) -> None:
    ping = tmp_path / "ping"
    ping.write_text('#!/bin/sh\necho $$ > "$0.pid"\nexec sleep 60\n')
    ping.chmod(0o755)
    process = subprocess.Popen(
        command_of("dllama-worker doctor --port 0 --peer 10.0.0.2"),
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:/bin:/usr/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "ping.pid").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == ExitCode.INTERRUPTED


# 1: a bug, and the "no" of a command that compares ---------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "main", "arguments", "program"),
    [
        ("dllama_proto.show.wireshark.make_dissector", "dllama_proto.cli", ["wireshark"], "dllama-proto"),
        ("dllama_ops.listing.print_table", "dllama_ops.cli", ["list"], "dllama-ops"),
        ("dllama_worker.worker.worker.Worker", "dllama_worker.__main__", ["--port", "0"], ""),
        (CHECK, "dllama_worker.__main__", ["doctor"], "dllama-worker"),
        ("dllama_worker.root.planning.command.make_plan", "dllama_worker.root.cli", PLAN, "dllama-root"),
        ("dllama_worker.root.run.open_session", "dllama_worker.root.cli", ["inference", "--prompt", "x"], ""),
    ],
)  # fmt: skip
def test_a_bug_ends_with_1_and_shows_where(
    broken: str, main: str, arguments: list[str], program: str
) -> None:
    code = (
        "import sys\nfrom unittest.mock import patch\n"
        f"from {main} import main\n"
        f"with patch({broken!r}, side_effect=KeyError('wo')):\n    sys.exit(main({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == ExitCode.BUG
    assert "Traceback (most recent call last):" in done.stderr
    line = f"{program} {arguments[0]}: error: " if program else " error: "  # worker and root log it
    assert f"{line}a bug of this program, please report it: KeyError: 'wo'\n" in done.stderr


def test_a_capture_with_unexplained_bytes_is_an_answer_and_no_failure(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pcap"
    packets = list(golden_packets("tiny-q40-2n"))
    damaged.write_bytes(pcap([*packets[5:100], *packets[130:]]))
    done = run(f"dllama-proto dissect {damaged}")
    assert (done.returncode, done.stderr) == (AMISS, "")


def test_captures_that_differ_are_an_answer_and_no_failure() -> None:
    done = run(f"dllama-proto diff {CAPTURE} {capture_path('tiny-f32-2n')}")
    assert (done.returncode, done.stderr) == (AMISS, "")
