"""Names from a hostile cluster, shown on a terminal: they forge no line, steer nothing, end nothing."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.cli import main
from dllama_proto.dissect import dissect_pcap
from dllama_proto.json_text import json_text
from dllama_proto.printable import printable
from dllama_proto.show.summary import Summary
from dllama_proto.show.summary_text import print_summary
from tests.helpers.captures import capture_path

#: Names of a recording and others of the same length: control sequences, a line of their own, rich's markup.
_NAMES = {
    b"block_matmul_q\0": b"\x1b[31m\nfakeline\0",
    b"final_norm\0": b"\xe2\x80\xaegnirts\xff\0",
    b"ZQ\0": b"\x1b[\0",
    b"POS\0": b"[/]\0",
    b"LG\0": b"\r\xff\0",
}

_JSON = [["dissect", "--json"], ["dissect", "-x", "--json"], ["dissect", "--summary", "--json"]]


@pytest.fixture
def capture(tmp_path: Path) -> str:
    data = gzip.decompress(capture_path("tiny-f32-2n").read_bytes())
    for name, other in _NAMES.items():
        assert name in data
        assert len(name) == len(other)
        data = data.replace(name, other)
    path = tmp_path / "hostile.pcap"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    "arguments",
    [["dissect"], ["dissect", "-v"], ["dissect", "-x"], ["dissect", "--summary"], *_JSON],
    ids=" ".join,
)
def test_a_terminal_gets_printable_lines_only(
    arguments: list[str], capture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, capture]) == 0
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.startswith("fakeline") for line in text.split("\n"))
    if "-v" in arguments:
        assert r"\x1b[31m\nfakeline" in text
        assert r"\u202egnirts\udcff" in text


def strings_in(value: Any) -> list[str]:
    """Every string of a JSON value, keys too."""
    if isinstance(value, dict):
        return [text for item in [*value, *value.values()] for text in strings_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("arguments", _JSON, ids=" ".join)
def test_json_holds_no_lone_surrogates(
    arguments: list[str], capture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, capture]) == 0
    data = capsys.readouterr().out.encode("utf-8")  # raises for a lone surrogate
    texts = [text for line in data.splitlines() for text in strings_in(json.loads(line))]
    for text in texts:
        text.encode("utf-8")
    assert "\r\\udcff" in texts
    assert ("\x1b[31m\nfakeline" in texts) == ("--summary" not in arguments)


@pytest.mark.parametrize("name", ["[/]", "[bold]x", "\x1b[2J"])
def test_a_summary_shows_pipes_as_they_are_called(name: str) -> None:
    summary = Summary()
    for event in dissect_pcap(str(capture_path("tiny-f32-2n"))):
        summary.add(event)
    summary.finish()
    for session in summary.sessions.values():
        for sync in session.syncs.values():
            sync.pipe = name
    shown = io.StringIO()
    print_summary(summary, shown)
    assert printable(name) in shown.getvalue()
    assert all(line.isprintable() for line in shown.getvalue().split("\n"))


@pytest.mark.parametrize("command", ["report", "timeline"])
def test_files_are_written_whatever_names_hold(command: str, capture: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert main([command, capture, "-o", str(output)]) == 0
    text = output.read_text()
    assert r"\udcff" in text
    # Behind an odd number of backslashes it would be a surrogate again for whom reads the JSON.
    assert all(len(found[0]) % 2 == 0 for found in re.finditer(r"\\+(?=udcff)", text))


def test_a_pipe_gets_what_a_terminal_gets(capture: str) -> None:
    command = [sys.executable, "-m", "dllama_proto", "dissect", "-v", capture]
    output = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode()
    assert all(line.isprintable() for line in output.split("\n"))


def test_differing_sessions_are_told_in_printable_lines(
    capture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", capture, str(capture_path("tiny-f32-2n"))]) == 1
    text = capsys.readouterr().out
    assert text
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    assert printable(line) == line
    if text.isprintable():
        assert line == text


@given(st.text(st.characters(exclude_categories=())), st.booleans())
def test_any_text_can_be_written_as_json(text: str, ascii_only: bool) -> None:
    written = json_text({text: [text]}, ascii_only=ascii_only)
    assert written.isprintable()
    assert written.isascii() or not ascii_only
    [(key, [value])] = json.loads(written.encode("utf-8")).items()
    assert key == value == re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_json_has_no_numbers_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text(value)
