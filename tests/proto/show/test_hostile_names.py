"""Names from a hostile cluster or file, in every output: they forge no line, steer nothing, end nothing."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import re
import shutil
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
from dllama_proto.show.report import gather, render
from dllama_proto.show.summary import Summary
from dllama_proto.show.summary_text import print_summary
from dllama_proto.show.trace_format import TraceWriter
from dllama_proto.show.wireshark import make_dissector
from dllama_proto.tokenizer_file import TokenizerFile, encode_tokenizer
from tests.helpers.captures import GOLDEN, capture_path
from tests.helpers.hostile import HOSTILE, HOSTILE_FILE_NAME, check_json, check_lines, strings_in

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
    check_lines(text)
    if "-v" in arguments:
        assert r"\x1b[31m\nfakeline" in text
        assert r"\u202egnirts\udcff" in text


@pytest.mark.parametrize("arguments", _JSON, ids=" ".join)
def test_json_holds_no_lone_surrogates(
    arguments: list[str], capture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, capture]) == 0
    texts = strings_in(check_json(capsys.readouterr().out))
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
    text = output.read_text(encoding="utf-8")
    assert r"\udcff" in text
    # Behind an odd number of backslashes it would be a surrogate again for whom reads the JSON.
    assert all(len(found[0]) % 2 == 0 for found in re.finditer(r"\\+(?=udcff)", text))


def test_a_pipe_gets_what_a_terminal_gets(capture: str) -> None:
    command = [sys.executable, "-m", "dllama_proto", "dissect", "-v", capture]
    check_lines(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode())


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=" ".join)
def test_differing_sessions_are_told_in_printable_lines(
    arguments: list[str], capture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *arguments, capture, str(capture_path("tiny-f32-2n"))]) == 1
    text = capsys.readouterr().out
    if arguments:
        assert check_json(text)
    else:
        check_lines(text)
    assert "udcff" in text


# Pages and pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_holds_any_name_as_data(name: str) -> None:
    data = gather(dissect_pcap(str(capture_path("tiny-f32-2n"))))
    data["sessions"][0]["pipes"][0]["name"] = name
    page = render(data)
    page.encode("utf-8")
    [embedded] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert "<" not in embedded
    assert embedded.isprintable()
    [value] = check_json(embedded)
    assert value["sessions"][0]["pipes"][0]["name"] == without_lone_surrogates(name)
    # The rest of the page is as ever.
    assert page.replace(embedded, "") == render({}).replace(">{}<", "><")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_trace_holds_any_name_as_data(name: str) -> None:
    file = io.StringIO()
    with TraceWriter(file) as trace:
        trace.span(1, name, name, 0, 1000, {name: name})
        trace.counter(1, name, 0, {name: 1})
    texts = strings_in(check_json(file.getvalue().replace("\n", "")))
    assert texts.count(without_lone_surrogates(name)) >= 4


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed (Debian: tshark)")
@pytest.mark.slow
def test_wireshark_shows_printable_lines(capture: str, tmp_path: Path) -> None:
    script = tmp_path / "dllama.lua"
    script.write_text(make_dissector())
    command = ["tshark", "-X", f"lua_script:{script}", "-r", capture, "-Y", "dllama", "-V", "-O", "dllama"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    text = done.stdout.decode()
    assert "fakeline" in text
    check_lines(text.replace("\t", " "))


# Files --------------------------------------------------------------------------------------------------


def hostile_tokenizer() -> bytes:
    """A tokenizer whose pieces and template are hostile."""
    texts = [name.encode("utf-8", "surrogatepass") for name in HOSTILE]
    return encode_tokenizer(
        TokenizerFile.of(
            texts,
            [0.0] * len(texts),
            bos_id=len(texts) - 2,
            eos_ids=range(len(texts) - 2),
            chat_template=b"".join(texts),
        )
    )


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A tokenizer, a model and a damaged model with hostile names."""
    model = (GOLDEN / "models" / "tiny-f32.m").read_bytes()
    found = {}
    for ending, data in ((".t", hostile_tokenizer()), (".m", model), (".bad", model[:-1])):
        path = tmp_path / f"{HOSTILE_FILE_NAME.replace('/', '')}{ending}"
        path.write_bytes(data)
        found[ending] = str(path)
    return found


@pytest.mark.parametrize("ending", [".t", ".m"])
def test_files_are_inspected_in_printable_lines(
    ending: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", files[ending]]) == 0
    text = capsys.readouterr().out
    check_lines(text)
    assert r"a\nfakeline\x1b[31m\u202e\udcff[red]" in text
    assert main(["inspect", "--json", files[ending]]) == 0
    [found] = check_json(capsys.readouterr().out)
    assert found["file"] == files[ending].replace("\udcff", r"\udcff")


@pytest.mark.parametrize(
    "arguments", [["inspect"], ["dissect"], ["timeline", "-o", os.devnull], ["report", "-o", os.devnull]]
)
def test_what_is_wrong_with_a_file_is_told_in_one_line(
    arguments: list[str], files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (files[".bad"], files[".bad"] + "missing"):
        assert main([*arguments, path]) == 2
        told = capsys.readouterr().err
        check_lines(told)
        assert r"\x1b[31m\u202e\udcff" in told
        assert told.count("\n") == 1


# Any text -----------------------------------------------------------------------------------------------


def without_lone_surrogates(text: str) -> str:
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


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
    assert key == value == without_lone_surrogates(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_json_has_no_numbers_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text(value)
