"""Limits on waiting: one home, from which options, command lines and documentation have their numbers."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from dllama_worker import timeouts
from dllama_worker.doctor import cli as doctor_cli
from dllama_worker.root import flags as root_flags
from dllama_worker.root.options import RootOptions
from dllama_worker.worker import flags as worker_flags
from dllama_worker.worker.options import WorkerOptions

ROOT = Path(__file__).parents[1]
_SOURCE = (ROOT / "dllama_worker/timeouts.py").read_text()
_FLAGS = {
    "--sync-timeout": timeouts.SYNC,
    "--keepalive": timeouts.KEEPALIVE,
    "--handshake-timeout": timeouts.HANDSHAKE,
    "--reconnect": timeouts.RECONNECT,
    "--wait": timeouts.WAIT,
}


def test_every_limit_says_who_waits_for_what() -> None:
    described = re.findall(r"(?:^#: .+\n)+^([A-Z_]+) = [\d.]+$", _SOURCE, re.M)
    assert sorted(described) == timeouts.__all__
    assert all(isinstance(getattr(timeouts, name), float) for name in timeouts.__all__)


def test_the_reliability_page_lists_every_limit() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    rows = re.findall(r"^\|[^|]+\|[^|]+\| ([\d.]+) \| ([^|]*)\| `([A-Z_]+)` \|$", page, re.M)
    assert {name: float(seconds) for seconds, _, name in rows} == {
        name: getattr(timeouts, name) for name in timeouts.__all__
    }
    flags = {match[1]: name for _, flag, name in rows if (match := re.match(r"`(--[a-z-]+)`", flag))}
    assert {flag: getattr(timeouts, name) for flag, name in flags.items()} == _FLAGS
    assert all(f"``{flag}``" in _SOURCE for flag in flags)


def _options(parser: argparse.ArgumentParser, *words: str) -> dict[str, object]:
    return vars(parser.parse_args(words))


def test_options_and_command_lines_have_the_same_defaults() -> None:
    worker, root = WorkerOptions(), RootOptions("inference")
    said = _options(worker_flags.make_parser())
    assert (worker.sync_timeout, worker.keepalive, worker.handshake_timeout) == (
        said["sync_timeout"], said["keepalive"], said["handshake_timeout"],
    ) == (timeouts.SYNC, timeouts.KEEPALIVE, timeouts.HANDSHAKE)  # fmt: skip
    said = _options(root_flags.make_parser(), "inference", "--prompt", "x")
    assert (root.sync_timeout, root.reconnect) == (said["sync_timeout"], said["reconnect"])
    assert (root.sync_timeout, root.reconnect) == (timeouts.SYNC, timeouts.RECONNECT)


@pytest.mark.parametrize("make_parser", [worker_flags.make_parser, doctor_cli.make_parser])
def test_help_texts_name_the_defaults(
    make_parser: type[argparse.ArgumentParser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "SYNC", 1234.5)
    assert "(default: 1234.5)" in make_parser().format_help()


def test_no_other_module_has_a_limit_of_its_own() -> None:
    """Constants of modules that are named as limits; intervals of looking and of logging are none."""
    limit = re.compile(r"^_?[A-Z_]*(?:TIMEOUT|PATIENCE|GRACE|KEEPALIVE)[A-Z_]*\b.* = [\d.]+", re.M)
    literal = re.compile(r"\b(?:timeout|keepalive)\b[^=\n]*= ?[\d.]+[,)\n]")
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in (ROOT / "dllama_worker").rglob("*.py")
        for pattern in (limit, literal)
        if path.name != "timeouts.py" and (match := pattern.search(path.read_text()))
    }
    assert found == {}
