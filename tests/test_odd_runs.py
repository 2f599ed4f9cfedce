"""Odd arguments and odd files, for every command: one line that says what is wrong and whose fault it is; no hang.

What is in the tables runs in this process; only what a process inherits (streams, encodings) takes real ones.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import dllama_ops.cli
import dllama_proto.cli
import dllama_worker.__main__
import dllama_worker.root.cli
from dllama_proto.command_line import file_name, file_path
from dllama_proto.exit_codes import ExitCode
from dllama_worker.certificates import cli as certificates
from dllama_worker.doctor import cli as doctor
from dllama_worker.model_cli import cli as model_cli
from dllama_worker.root import flags as root_flags
from dllama_worker.tunnel import cli as tunnel
from dllama_worker.worker import flags as worker_flags
from tests.helpers.captures import GOLDEN, capture_path

ROOT = Path(__file__).parents[1]
MODEL = str(GOLDEN / "models/tiny-q40.m")
CAPTURE = str(capture_path("tiny-q40-2n"))
SURROGATE = os.fsdecode(b"\xff")
ZERO = Path("/dev/zero")

MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "dllama-proto": dllama_proto.cli.main,
    "dllama-ops": dllama_ops.cli.main,
    "dllama-worker": dllama_worker.__main__.main,
    "dllama-root": dllama_worker.root.cli.main,
    "dllama-model": model_cli.main,
}


def run(*words: str) -> int:
    """Run a command in this process; return its exit code."""
    try:
        return MAINS[words[0]](words[1:])
    except SystemExit as end:  # what argparse says
        return end.code if isinstance(end.code, int) else ExitCode.BUG


def check_one_line(said: str, complaint: str) -> None:
    errors = [line for line in said.splitlines() if "error: " in line]
    assert len(errors) == 1, said
    assert re.search(complaint, errors[0]), said
    for bad in ("Traceback", "usage:", "bug of this program"):
        assert bad not in said


# Every flag ------------------------------------------------------------------------------------------------


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command by its name, with its parser."""
    found: dict[str, argparse.ArgumentParser] = {}
    for make in (
        worker_flags.make_parser,
        doctor.make_parser,
        certificates.make_parser,
        tunnel.make_parser,
        root_flags.make_parser,
        model_cli.make_parser,
        dllama_proto.cli.make_parser,
        dllama_ops.cli.make_parser,
    ):
        parser = make()
        choices = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        subcommands = dict(choices[0]) if choices else {"": parser}
        found |= {each.prog: each for each in subcommands.values()}
    return found


PARSERS = _parsers()

_TEXTS = ("", " ", "a b", "a\0b", SURROGATE, "\U0001f600 ", "x" * 6000 + " ")
_NUMBERS = ("", "x", "-1", "nan", "inf", "-inf", "1e400", "-" + "9" * 30, "0x10")
#: By the name of what reads an argument, values that it refuses.
_REFUSED = {
    "file_name": ("", "a\0b"),
    "file_path": ("", "a\0b"),
    "whole number": (*_NUMBERS, "1.5", "1e3", "9" * 5000),
    "seconds": (*_NUMBERS, "0", "1e30", "9" * 300),
    "patience": (*_NUMBERS, "1e30"),
    "keepalive": (*_NUMBERS, "0", "40000", "1e30"),
    "not_negative": _NUMBERS,
    "_fraction": (*_NUMBERS, "1.5"),
    "port": (*_NUMBERS, "65536", "9" * 30, "\u0663", " 5 ", "1_0"),
    "network": (*_TEXTS, "10.0.0.0/33", "10.0.0.1/8", "::/129"),
    "_plugin": ("", " "),
    "numbers": (*_NUMBERS, "1-", "3-1", ","),
    "kinds": (*_TEXTS, ","),
    "size": (*_NUMBERS, "0", "8X", "9" * 30),
    "read": _TEXTS,
    "WeightChoice": ("", "x", "Q40", "q8"),
    "template_variables": (*_TEXTS, "x=True", "a b=1", "messages=[]", "[1]", "9" * 5000, '{"a":' * 9999),
}


def _flags(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments that take a value which something reads."""
    return (action for action in parser._actions if action.type is not None)


def test_every_command_is_here() -> None:
    assert len(PARSERS) == 22
    assert {name.split()[0] for name in PARSERS} == set(MAINS)


@pytest.mark.parametrize("command", PARSERS)
def test_every_path_and_number_has_a_reader_that_refuses(command: str) -> None:
    kinds = {getattr(action.type, "__name__", "") for action in _flags(PARSERS[command])}
    assert kinds <= set(_REFUSED), "say here what is refused"
    paths = {"FILE", "PATH", "DIR", "FILE.json", "FILE.png", "FILE.pcapng", "REPORT.html", "TRACE.json"}
    for action in PARSERS[command]._actions:
        if action.metavar in paths:
            assert action.type in (file_name, file_path), action


@pytest.mark.parametrize("command", PARSERS)
def test_odd_values_of_every_flag_are_refused_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = PARSERS[command]
    for action in _flags(parser):
        name = action.option_strings[-1] if action.option_strings else action.metavar
        for value in _REFUSED[getattr(action.type, "__name__", "")]:
            words = [value]
            if action.option_strings:
                words = [f"{name}={value}"] if str(name).startswith("--") else [str(name), value]
            elif value.startswith("-"):
                words = ["--", value]
            with pytest.raises(SystemExit) as end:
                parser.parse_args(words)
            assert end.value.code == ExitCode.CALLER
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith(f"{command}: error: "), line


# Whole runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of odd files, in which the commands run."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "empty").touch()
    (folder / "deep.toml").write_text("a = " + "[" * 16000)
    (folder / "dotted.toml").write_text("allow" + ".a" * 2000 + " = 1")
    (folder / "long.toml").write_text("#" * 20000)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    return folder


_TOKENIZER = f"--tokenizer {MODEL}"
_PROMPT = "dllama-root inference --prompt x --steps 4 --nthreads 1"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        # What is no file.
        ("dllama-proto inspect fifo", "fifo: expected a file, got a named pipe"),
        ("dllama-proto inspect .", "Is a directory"),
        ("dllama-proto inspect loop", "loop: Too many levels"),
        (f"dllama-proto dissect --tokenizer fifo {CAPTURE}", "fifo: expected a file, got a named pipe"),
        ("dllama-proto timeline --merge fifo -o out.json", "fifo: expected a file, got a named pipe"),
        ("dllama-proto dissect empty/x", "empty/x: Not a directory"),
        (f"dllama-proto report {CAPTURE} -o .", "Is a directory"),
        (f"dllama-proto timeline {CAPTURE} -o empty/x", "Not a directory"),
        ("dllama-proto tap --listen :0 --to :9 --quiet --record .", "Is a directory"),
        (
            "dllama-worker --port 0 --model fifo",
            "fifo: cannot be read as a model: expected a file, got a named",
        ),
        ("dllama-worker --port 0 --trace .", "cannot write the trace: .: Is a directory"),
        (
            "dllama-worker --port 0 --tls-cert fifo --tls-key fifo --tls-ca fifo",
            "--tls-ca fifo: cannot be read: expected a file, got a named pipe",
        ),
        ("dllama-worker certificates --out empty n1", "empty: cannot be written or read"),
        (f"{_PROMPT} --model fifo {_TOKENIZER}", "fifo: cannot be read as a model: expected a file"),
        (
            f"{_PROMPT} --model {MODEL} --tokenizer fifo",
            "fifo: cannot be read as a tokenizer: expected a file",
        ),
        ("dllama-root plan --model fifo --nodes 2", "fifo: cannot be read as a model: expected a file"),
        # What is nested, or long.
        ("dllama-worker --config deep.toml", "deep.toml: is nested too deeply"),
        (
            "dllama-worker --config dotted.toml",
            "allow: expected a value or a list of values, got {'a': {'a'",
        ),
        ("dllama-worker --config long.toml", "long.toml: cannot be read: expected at most 16384 bytes"),
        ("dllama-worker doctor --config deep.toml", "deep.toml: is nested too deeply"),
        # Numbers that no machine has.
        (f"{_PROMPT} --local-workers 9223372036854775808", "argument --local-workers: expected 0 to 255"),
        ("dllama-root plan --model gqa --nodes 9223372036854775808", "argument --nodes: expected 1 to 256"),
        ("dllama-root plan --model gqa --nodes 2 --speed 0", "argument --speed: expected GB/s from"),
        ("dllama-root plan --model gqa --nodes 2 --speed 1e308", "argument --speed: expected GB/s from"),
        ("dllama-worker --nthreads 100000", "argument --nthreads: expected 1 to 4096"),
        ("dllama-ops bench --model tiny --rows 9223372036854775808", "--rows: expected 1 to 65536"),
        (
            "dllama-ops bench --model tiny --position 9223372036854775808",
            "--position: expected 0 to 16777215",
        ),
        ("dllama-ops bench --model tiny --nthreads 100000", "--nthreads: expected 1 to 4096"),
        ("dllama-ops check numpy --cases 9223372036854775808", "--cases: expected 1 to 1000000"),
        (f"dllama-proto inspect {MODEL} --nodes 9223372036854775808", "nodes cannot share this model"),
    ],
)
def test_what_the_caller_wrote_ends_with_2(
    line: str,
    complaint: str,
    odd: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(odd)
    assert run(*line.split()) == ExitCode.CALLER
    check_one_line(capsys.readouterr().err, re.escape(complaint).replace(r"\ ", " "))


@pytest.mark.skipif(not ZERO.exists(), reason="needs /dev/zero")
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("dllama-worker --config /dev/zero", "/dev/zero: cannot be read: expected at most 16384 bytes"),
        ("dllama-worker --model /dev/zero", "expected a file, got a device"),
        ("dllama-proto inspect /dev/zero", "/dev/zero: expected a file, got a device"),
        ("dllama-proto dissect /dev/zero", "expected a pcap or pcapng file"),
        (
            "dllama-proto timeline --merge /dev/zero -o /dev/null",
            "/dev/zero: expected a file, got a device",
        ),
        ("dllama-root inference --prompt-file /dev/zero", "/dev/zero: expected at most 67108864 bytes"),
    ],
)
def test_what_never_ends_is_not_read_to_the_end(
    line: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*line.split()) == ExitCode.CALLER
    check_one_line(capsys.readouterr().err, complaint)


def test_an_empty_plugin_name_does_not_check_every_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dllama-ops", "check", "") == ExitCode.CALLER
    check_one_line(capsys.readouterr().err, "expected the name of a plugin, got none")


# What a process inherits -----------------------------------------------------------------------------------

#: Commands that soon end, one of each program; the last says something that is not ASCII where it can.
_SHORT = (
    f"dllama_proto dissect --summary {CAPTURE}",
    "dllama_ops list",
    "dllama_worker --config /nonexistent",
    "dllama_worker.root inference --prompt \N{SNOWMAN} --steps 8 --nthreads 1",
)


@pytest.mark.slow
@pytest.mark.parametrize("line", _SHORT)
@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", "2>&- | head -c1"])
def test_streams_that_are_closed_are_no_bug(line: str, redirection: str) -> None:
    """What is said may be lost; neither a signal nor a traceback ends the command."""
    script = f"{sys.executable} -m {line} {redirection}; echo code=${{PIPESTATUS[0]}} >&3"
    reading, writing = os.pipe()
    with os.fdopen(reading) as codes:
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{writing}; {script}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            pass_fds=(writing,),
            errors="replace",
            check=False,
        )
        os.close(writing)
        [code] = re.findall(r"code=(\d+)", codes.read())
    allowed = {ExitCode.DONE, ExitCode.CALLER, ExitCode.MACHINE}
    assert int(code) in allowed, done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("line", [_SHORT[0], _SHORT[-1]])
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_that_lacks_letters_is_no_bug(line: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *line.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONCOERCECLOCALE": "0", **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.DONE, done.stderr
    assert b"Traceback" not in done.stderr
