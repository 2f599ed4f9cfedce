"""The command line as people meet it: help, wrong arguments, files that are no models, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dllama_worker.worker.flags import make_parser
from dllama_worker.worker.settings_file import parse_arguments
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
        "import sys; from dllama_worker.__main__ import main\n"
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
        (["--nthreads", "0"], "expected 1 to 4096, got 0"),
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


# Settings from a file --------------------------------------------------------------------------------


def test_a_file_sets_flags_and_the_command_line_overrides_it(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('port = 9999\nnthreads = 4\nmodel = "llama.m"\nonce = true\nlog-format = "json"\n')
    arguments = parse_arguments(make_parser, ["--nthreads", "2", "--config", str(file), "--port", "9990"])
    assert (arguments.port, arguments.nthreads) == (9990, 2)
    assert (arguments.model, arguments.once, arguments.log_format) == (Path("llama.m"), True, "json")
    assert arguments.host == make_parser().parse_args([]).host


def test_a_list_given_twice_adds_up_and_replaces_what_the_file_has(tmp_path: Path) -> None:
    def allowed(*words: str) -> list[str]:
        return [str(network) for network in parse_arguments(make_parser, list(words)).allow]

    file = tmp_path / "worker.toml"
    file.write_text('allow = ["10.0.0.0/8"]\n')
    twice = ("--allow", "192.168.1.10", "--allow", "192.168.1.20", "192.168.2.0/24")
    assert allowed(*twice) == ["192.168.1.10/32", "192.168.1.20/32", "192.168.2.0/24"]
    assert allowed("--config", str(file)) == ["10.0.0.0/8"]
    assert allowed("--config", str(file), *twice) == allowed(*twice)
    assert allowed() == []


def test_every_flag_can_stand_in_a_file(tmp_path: Path) -> None:
    for action in make_parser()._actions:
        name = action.option_strings[-1].removeprefix("--")
        if name in ("help", "version", "config"):
            continue
        value: object = next(iter(action.choices)) if action.choices else "1"
        if action.nargs == 0:
            value = True
        elif action.nargs is not None:
            value = ["127.0.0.1"]
        file = tmp_path / "worker.toml"
        file.write_text(f"{name} = {json.dumps(value)}\n")
        words = (
            [f"--{name}"]
            if value is True
            else [f"--{name}", *(value if isinstance(value, list) else [value])]
        )
        arguments = parse_arguments(make_parser, ["--config", str(file)])
        arguments.config = None
        assert arguments == make_parser().parse_args([str(word) for word in words])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nthread = 4", "unknown key 'nthread', the nearest is 'nthreads'"),
        ("log_level = 'debug'", "unknown key 'log_level', the nearest is 'log-level'"),
        ("config = 'other.toml'", "unknown key 'config'"),
        ("[worker]\nport = 1", "unknown key 'worker'"),
        ("nthreads = 0", "nthreads: expected 1 to 4096, got 0"),
        ("nthreads = 'many'", "nthreads: invalid whole number value: 'many'"),
        ("once = 1", "once: "),
        ("port = true", "port: expected one argument"),
        ("port = {number = 1}", "port: expected a value or a list of values"),
        ('model = "a\\u0000b"', r"model: expected text without NUL, got 'a\x00b'"),
        ("allow = ['10.0.0.0/8', '--help']", "allow: expected values, got a flag among"),
        ("port =", "is not TOML: Invalid value (at end of document)"),
    ],
)
def test_what_is_wrong_in_a_file_is_a_usage_error(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        parse_arguments(make_parser, ["--config", str(file)])
    assert ended.value.code == 2
    assert f"error: {file}: {complaint}" in capsys.readouterr().err


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    result = run("--config", str(tmp_path / "none.toml"))
    assert result.returncode == 2
    assert "none.toml: cannot be read: No such file or directory" in result.stderr
