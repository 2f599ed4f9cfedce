"""Wrong command lines of every command: one line, and where the help is."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dllama_proto.command_line import CommandParser

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line", "name"),
    [
        ("dllama_proto", "", "dllama-proto"),
        ("dllama_proto", "dissect", "dllama-proto dissect"),
        ("dllama_proto", "tap --listen :0", "dllama-proto tap"),
        ("dllama_ops", "bench --rows x", "dllama-ops bench"),
        ("dllama_worker", "--port 70000", "dllama-worker"),
        ("dllama_worker", "doctor --port 70000", "dllama-worker doctor"),
        ("dllama_worker.root", "", "dllama-root"),
        ("dllama_worker.root", "chat --temperature -1", "dllama-root chat"),
        ("dllama_worker.root", "chat --tokenizer x.t", "dllama-root chat"),
        ("dllama_worker.root", "plan --model gqa", "dllama-root plan"),
        ("dllama_worker.model.synthetic", "--frobnicate", "python -m dllama_worker.model.synthetic"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(module: str, line: str, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *line.split()],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=False,
    )
    [complaint] = done.stderr.splitlines()
    assert complaint.startswith(f"{name}: error: ")
    assert complaint.endswith(f" (see {name} --help)")
    assert (done.returncode, done.stdout) == (2, "")


def test_what_was_typed_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        CommandParser(prog="tool").parse_args(["--x\x1b[31m\nforged: error"])
    [complaint] = capsys.readouterr().err.splitlines()
    assert complaint == r"tool: error: unrecognized arguments: --x\x1b[31m\nforged: error (see tool --help)"


def test_every_parser_of_the_packages_is_this_one() -> None:
    sources = [
        path
        for package in ("dllama_proto", "dllama_ops", "dllama_worker")
        for path in (ROOT / package).rglob("*.py")
    ]
    others = [path for path in sources if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")]
    assert others == []
    commands = CommandParser(prog="tool").add_subparsers()
    assert type(commands.add_parser("sub")) is CommandParser
    assert issubclass(CommandParser, argparse.ArgumentParser)
