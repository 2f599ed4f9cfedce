"""The doctor: what it says of this machine, of machines that lack something, and of connections to nodes."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.endpoint import Endpoint
from dllama_proto.exit_codes import ExitCode
from dllama_proto.terminal import Terminal
from dllama_worker.doctor.finding import Finding, Grade
from dllama_worker.doctor.network_checks import check_peers, check_ports
from dllama_worker.doctor.report import print_findings
from dllama_worker.node.machine import cgroup_cores, cgroup_free_memory, default_threads
from dllama_worker.worker.options import WorkerOptions

REPOSITORY = Path(__file__).parents[2]


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    result = subprocess.run(
        [sys.executable, "-m", "dllama_worker", "doctor", "--json", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = json.loads(result.stdout) if result.stdout else []
    return result.returncode, {entry["check"]: entry for entry in found}, result.stderr


@pytest.mark.slow
def test_it_tells_of_this_machine_with_the_workers_own_flags(tmp_path: Path) -> None:
    config = tmp_path / "worker.toml"
    config.write_text('port = 0\nnthreads = 4096\nmetrics-port = 0\nkernels = "numpy"\n')
    code, found, errors = doctor("--config", str(config))
    assert (code, errors) == (0, "")
    assert list(found) == [
        "Python",
        "kernels",
        "instruction sets",
        "cores",
        "memory",
        "memory bandwidth",
        "port",
        "metrics port",
    ]
    assert found["kernels"]["matmul"] == "numpy"
    assert found["kernels"]["grade"] == "warning"
    assert found["cores"]["grade"] == "warning"
    assert f"--nthreads {default_threads()}" in found["cores"]["advice"]
    assert found["memory"]["available"] > 0
    assert found["memory bandwidth"]["gigabytes_per_second"] > 0


@pytest.mark.slow
def test_the_exit_code_is_that_of_the_first_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, found, _ = doctor("--port", str(taken.getsockname()[1]), "--kernels", "nosuch")
    assert code == ExitCode.CALLER
    assert found["kernels"]["grade"] == found["port"]["grade"] == "failure"


def test_wrong_arguments_name_the_command() -> None:
    code, _, errors = doctor("--peer", "host:port")
    assert code == 2
    assert "dllama-worker doctor: error: argument --peer: expected HOST:PORT, got 'host:port'" in errors


def test_a_taken_port_is_a_failure_of_the_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        [finding] = check_ports(WorkerOptions(port=taken.getsockname()[1]))
    assert (finding.grade, finding.exit_code) == (Grade.FAILURE, ExitCode.MACHINE)
    assert "Address already in use" in finding.text


# Other nodes -----------------------------------------------------------------------------------------


def fake_ping(folder: Path, says: str, complains: str = "") -> None:
    ping = folder / "ping"
    ping.write_text(f"#!/bin/sh\necho '{says}'\necho '{complains}' >&2\n")
    ping.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "grade"),
    [
        ("rtt min/avg/max/mdev = 0.032/0.200/0.250/0.099 ms", Grade.OK),
        ("round-trip min/avg/max/stddev = 1.032/3.200/8.250/0.099 ms", Grade.WARNING),
        ("round-trip min/avg/max = 1.032/3.200/8.250 ms", Grade.WARNING),
    ],
)
def test_every_ping_program_is_understood(
    says: str, grade: Grade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ping(tmp_path, says)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    [finding] = check_peers([Endpoint("10.0.0.2", 9990)], connect=False)
    assert (finding.name, finding.grade) == ("round trip to 10.0.0.2", grade)
    assert finding.facts["middle_ms"] in (0.2, 3.2)
    assert ("Wi-Fi" in finding.advice) == (grade is Grade.WARNING)


def test_a_host_that_does_not_answer_is_a_failure_of_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ping(tmp_path, "", "ping: nosuch: Name or service not known")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    [finding] = check_peers([Endpoint("nosuch", 9990)], connect=False)
    assert (finding.grade, finding.exit_code) == (Grade.FAILURE, ExitCode.PEER)
    assert finding.text == "nosuch: Name or service not known"


def test_without_a_ping_program_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    [finding] = check_peers([Endpoint("10.0.0.2", 9990)], connect=False)
    assert (finding.text, finding.grade) == ("not measured", Grade.WARNING)


def test_it_connects_only_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ping(tmp_path, "rtt min/avg/max/mdev = 0.032/0.200/0.250/0.099 ms")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        peer = Endpoint("127.0.0.1", listener.getsockname()[1])
        assert len(list(check_peers([peer], connect=False))) == 1
        with pytest.raises(BlockingIOError):
            listener.accept()
        _, connection = check_peers([peer], connect=True)
        listener.accept()[0].close()
    assert connection.grade is not Grade.FAILURE
    _, refused = check_peers([peer], connect=True)
    assert (refused.grade, refused.text) == (Grade.FAILURE, "Connection refused")


# Limits from outside ---------------------------------------------------------------------------------


def control_groups(root: Path, **groups: dict[str, str]) -> Path:
    for name, files in groups.items():
        folder = root / name.replace("__", "/").strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    own = root / "own"
    own.write_text("1:name=systemd:/ignored\n0::/pod/box\n")
    return own


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    own = control_groups(
        tmp_path,
        pod__box={
            "memory.max": "max",
            "memory.current": "10",
            "cpu.max": "150000 100000",
        },
        pod={
            "memory.max": "1000",
            "memory.current": "700",
            "memory.stat": "anon 600\ninactive_file 50\n",
            "cpu.max": "max 100000",
        },
    )
    assert cgroup_free_memory(tmp_path, own) == 350
    assert cgroup_cores(tmp_path, own) == 1.5


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup_free_memory(tmp_path, tmp_path / "own") is None
    assert cgroup_cores(tmp_path, tmp_path / "own") is None


# The table -------------------------------------------------------------------------------------------


def test_the_table_has_everything_a_person_needs() -> None:
    text = io.StringIO()
    findings = [Finding("cores", "[2] usable"), Finding("port", "taken", Grade.FAILURE, "choose another")]
    print_findings(findings, Terminal(text, width=100))
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert lines == [
        ["check", "found", "advice"],
        ["cores", "[2]", "usable", "ok"],
        ["port", "taken", "failure", "choose", "another"],
    ]
