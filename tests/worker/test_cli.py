"""The command line as people meet it: help, wrong arguments, files that are no models, signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dllama_worker.cli import make_parser
from tests.helpers.processes import worker_process

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dllama_worker", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_cpp_workers_command_line_works_unchanged() -> None:
    arguments = make_parser().parse_args(
        ["--host", "0.0.0.0", "--port", "9999", "--nthreads", "4", "--net-turbo", "0"]  # noqa: S104
    )
    assert (arguments.host, arguments.port, arguments.nthreads) == ("0.0.0.0", 9999, 4)  # noqa: S104


def test_help_names_every_flag_and_does_not_load_numpy() -> None:
    code = (
        "import sys; from dllama_worker.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'construct', 'rich', 'pluggy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True
    )
    for action in make_parser()._actions:
        assert action.option_strings[-1] in result.stdout
    assert result.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "70000"], "expected 0 to 65535, got 70000"),
        (["--nthreads", "0"], "expected 1 or more, got 0"),
        (["--log-format", "xml"], "invalid choice: 'xml'"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["--kernels", "nosuch"], "'nosuch'"),
        (["--model", "/nonexistent/llama.m"], "/nonexistent/llama.m"),
    ],
)
def test_wrong_arguments_end_with_code_2_and_say_what_was_wrong(
    arguments: list[str], complaint: str
) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_the_machines_fault() -> None:
    with worker_process() as worker:
        result = run("--port", str(worker.port))
    assert result.returncode == 4
    assert f"cannot listen on 127.0.0.1:{worker.port}: Address already in use" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(signum: int) -> None:
    with worker_process() as worker:
        assert worker.terminate(signum) == 0
        assert worker.log[-1]["event"] == "stopped"


def test_it_says_that_it_listens_on_loopback_and_how_to_change_that() -> None:
    with worker_process() as worker:
        message = worker.log[-1]["message"]
    assert message.startswith(f"listening on 127.0.0.1:{worker.port}")
    assert "--host 0.0.0.0" in message
