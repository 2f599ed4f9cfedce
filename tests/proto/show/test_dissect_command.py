"""``dllama-proto dissect``: text, JSON, summaries, filters, numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from dllama_proto import messages
from dllama_proto.cli import main
from dllama_proto.dissect import Kind, MessageEvent, SliceEvent, dissect_pcap
from dllama_proto.floats import bytes_to_values
from dllama_proto.show.filters import parse_ranges
from dllama_proto.show.json_form import events_schema, plain
from dllama_proto.show.summary import percentile
from tests.helpers.captures import CASES, CUT_CASE, GOLDEN, capture_path, load
from tests.helpers.packets import golden_packets, pcap

_TINY = str(capture_path("tiny-q40-2n"))
_FOUR = str(capture_path("gqa-q40-4n"))
_VALIDATOR = jsonschema.Draft202012Validator(events_schema())


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, which must end well; return what it printed."""
    assert main(["dissect", *arguments]) == 0
    return capsys.readouterr().out


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Text -------------------------------------------------------------------------------------------------


def test_every_event_is_a_line_and_the_last_one_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(_TINY, capsys=capsys).splitlines()
    events = list(dissect_pcap(_TINY))
    assert len(lines) == len(events) + 2
    assert "you are worker 0 of 1" in lines[2]
    assert any("forward 0: 5 rows from position 0" in line for line in lines)
    assert any("layer 1 feed-forward: pipe ZQ, row 3 (position 3)" in line for line in lines)
    assert lines[-1].endswith("148.3 kB explained, 0 bytes missing, 0 unexplained")


def test_fields_show_a_config_as_a_tree_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    text = run("-v", "--kind", "node_config,net_config", _TINY, capsys=capsys)
    assert "MATMUL Q80_Q40_F32 block_matmul_q 0" in text
    assert "input: buffer q_y Q80 [32][128] (batch)" in text
    assert "inv_rms_buffer 8 (inv_rms)" in text
    assert "sync pipe ZQ: node slices" in text
    assert "4 ZQ: Q80 [32][256]" in text


def test_hex_shows_each_field_beside_its_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    text = run("-x", "--kind", "node_config,control,ack", _TINY, capsys=capsys)
    assert re.search(r"05 00 00 00 +segments\[1\]\.ops\[4\]\.code = MATMUL \(5\)", text)
    assert re.search(r"00 00 00 00 +position = 0", text)
    assert "aa aa 67 01" in text


def test_hex_shows_every_byte_of_every_message(capsys: pytest.CaptureFixture[str]) -> None:
    text = run("-x", "--kind", "node_config", _TINY, capsys=capsys)
    data = bytes.fromhex("".join(re.findall(r"^ +\d+  ((?:[0-9a-f]{2} )*[0-9a-f]{2}) ", text, re.M)))
    [config] = [event for event in dissect_pcap(_TINY) if event.kind is Kind.NODE_CONFIG]
    assert data == config.raw


def test_a_capture_that_ends_early_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the capture ends before this connection does" in run(str(capture_path(CUT_CASE)), capsys=capsys)


def test_standard_input_is_read_as_it_comes() -> None:
    data = pcap(golden_packets("tiny-q40-2n"))
    command = [sys.executable, "-m", "dllama_proto", "dissect", "--kind", "control", "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert done.stdout.decode().count("  control  ") == 7
    assert b"standard input" in done.stdout


def test_a_bad_file_is_named_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "notes.txt"
    bad.write_text("no capture")
    assert main(["dissect", str(bad)]) == 2
    assert f"{bad} at byte 0: expected a pcap or pcapng file" in capsys.readouterr().err
    assert main(["dissect", str(tmp_path / "none.pcap")]) == 2
    assert "none.pcap" in capsys.readouterr().err


# JSON -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["tiny-q40-2n", "qwen3_moe-q40-2n", "gqa-q40-4n", CUT_CASE])
def test_json_is_as_its_schema_says(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(run("--json", "-x", "--values", str(capture_path(case)), capsys=capsys))
    kinds = Counter(item["kind"] for item in found)
    assert kinds.pop("totals") == 1
    events = list(dissect_pcap(capture_path(case)))
    assert kinds == Counter(event.kind.value for event in events)
    seen: set[str] = set()
    for item, event in zip(found, events, strict=False):
        assert (item["offset"], item["size"], item["time_ns"]) == (event.offset, event.size, event.time)
        assert bytes.fromhex(item["raw"]) == event.raw
        # Validating every slice takes long and shows nothing new.
        if item["kind"] != "slice" or "slice" not in seen or item["pipe"] == "LG":
            _VALIDATOR.validate(item)
        seen.add(item["kind"])
    _VALIDATOR.validate(found[-1])


def test_damage_as_json_is_as_the_schema_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packets = list(golden_packets("tiny-q40-2n"))
    late = pcap([*packets[5:100], *packets[130:]])
    (tmp_path / "late.pcap").write_bytes(late[:-3])
    whole = bytearray(pcap(packets))
    at = whole.index(b"\x02\x00\x00\x00", whole.index(b"\xaa\xaa\x67\x01") + 300)
    whole[at] = 9
    (tmp_path / "wrong.pcap").write_bytes(whole)
    kinds = set()
    for name in ("late.pcap", "wrong.pcap"):
        main(["dissect", "--json", str(tmp_path / name)])
        for item in objects(capsys.readouterr().out):
            _VALIDATOR.validate(item)
            kinds.add(item["kind"])
    assert {"notice", "unexplained", "missing"} <= kinds


def test_json_has_all_of_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    """What JSON says of a config gives the config back."""
    found = objects(run("--json", "--kind", "net_config,greeting,control", _FOUR, capsys=capsys))
    events = [
        event
        for event in dissect_pcap(_FOUR)
        if isinstance(event, MessageEvent) and event.kind in (Kind.NET_CONFIG, Kind.GREETING, Kind.CONTROL)
    ]
    for item, event in zip(found, events, strict=False):
        assert set(item["message"]) == {field.name for field in fields(event.message)}
        assert item["message"] == plain(event.message)
    assert json.dumps(found[-1])
    assert found[0]["message"]["peers"] == [
        {"host": "127.0.0.1", "port": 21041},
        {"host": "127.0.0.1", "port": 21042},
    ]


def test_floats_that_are_no_numbers_are_text() -> None:
    record = messages.InvRmsConfig(float("nan"), 1)
    assert plain(record) == {"epsilon": "nan", "n_columns": 1}
    assert plain([float("inf"), -float("inf"), 1.5]) == ["inf", "-inf", 1.5]


# Filters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        (("--kind", "weight"), lambda e: e["kind"] == "weight"),
        (
            ("--node", "2", "--kind", "slice"),
            lambda e: 2 in (e["stream"]["sender"], e["stream"]["receiver"]),
        ),
        (("--layer", "1-2", "--kind", "slice"), lambda e: e["place"]["layer"] in (1, 2)),
        (("--layer", "0", "--kind", "weight"), lambda e: e["header"]["op_index"] == 0),
        (("--position", "3,5", "--kind", "slice"), lambda e: e["position"] in (3, 5)),
    ],
)
def test_filters_let_pass_what_fits_and_all_of_it(
    arguments: tuple[str, ...], holds: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = arguments[arguments.index("--kind") + 1]
    every = objects(run("--json", "--kind", kind, _FOUR, capsys=capsys))[:-1]
    shown = objects(run("--json", *arguments, _FOUR, capsys=capsys))[:-1]
    assert 0 < len(shown) <= len(every)
    if kind == "weight" and "--layer" in arguments:
        every = [e for e in every if e["header"]["name"].startswith("block_")]
    assert shown == [e for e in every if holds(e)]


def test_ranges_are_numbers_lists_and_spans() -> None:
    numbers = parse_ranges("0-2, 7")
    assert [n for n in range(9) if n in numbers] == [0, 1, 2, 7]
    assert len(numbers) == 4
    for text in ("", "x", "1-", "-1", "1-2-3"):
        with pytest.raises(ValueError, match="neither a number nor a range"):
            parse_ranges(text)


def test_wrong_arguments_end_with_2() -> None:
    for arguments in (["dissect"], ["dissect", "--kind", "no", _TINY], ["dissect", "--layer", "x", _TINY]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


# Numbers ----------------------------------------------------------------------------------------------


def test_values_are_those_of_the_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = str(GOLDEN / "models" / "tiny.t")
    found = objects(run("--json", "--tokenizer", tokenizer, "--kind", "slice", _TINY, capsys=capsys))[:-1]
    dissection = dissect_pcap(_TINY)
    events = [event for event in dissection if isinstance(event, SliceEvent)]
    net = dissection.sessions[0].net
    assert net is not None
    for item, event in zip(found, events, strict=True):
        float_type = net.pipes[event.transfer.pipe_index].size.float_type
        numbers = bytes_to_values(float_type, event.raw).astype(np.float64)
        assert item["values"]["n"] == numbers.size
        assert item["values"]["minimum"] == numbers.min()
        assert item["values"]["maximum"] == numbers.max()
        assert item["values"]["mean"] == pytest.approx(numbers.mean())
        assert item["values"]["n_nan"] == 0
        if event.pipe == "LG":
            best = item["values"]["top"][0]
            # Node 1 of 2 has the second half of the vocabulary of 512.
            assert best["index"] == 256 + int(numbers.argmax())
            assert best["logit"] == numbers.max()
            assert best["text"]
        else:
            assert item["values"]["top"] == []


# Summaries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_summary_counts_every_byte(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    session = load(case)
    summary, totals = objects(run("--summary", "--json", str(capture_path(case)), capsys=capsys))
    [found] = summary["sessions"]
    assert totals["unexplained_bytes"] == 0
    assert {(link["sender"], link["receiver"]): link["total"] for link in found["links"]} == {
        (stream.sender, stream.receiver): len(stream.data) for stream in session.streams
    }
    for node in found["nodes"]:
        mine = [stream for stream in session.streams if stream.sender == node["node"]]
        assert node["sent"] == sum(len(stream.data) for stream in mine)
    forwards = [packet for packet in session.control_packets if packet[1]]
    assert found["forwards"] == len(forwards)
    assert found["prefill"]["tokens"] == sum(n for _, n in forwards if n > 1)
    assert found["decode"]["tokens"] == sum(n for _, n in forwards if n == 1)
    assert found["decode"]["tokens_per_second"] > 0
    for sync in found["syncs"]:
        assert sync["forwards"] == len(forwards)
        assert 0 <= sync["median_ns"] <= sync["p99_ns"]
        if sync["sync_type"] == "NODE_SLICES":
            assert sum(sync["last"].values()) == len(forwards)


def test_the_summary_is_tables(capsys: pytest.CaptureFixture[str]) -> None:
    text = run("--summary", _FOUR, capsys=capsys)
    assert "session 0: 6 forwards" in text
    assert re.search(r"^0 \(root\) +939\.9 kB", text, re.M)
    assert re.search(r"^layer 2 feed-forward +ZQ +node slices +6", text, re.M)
    assert re.search(r"^3 > 2 ", text, re.M)


def test_percentiles_are_samples_by_nearest_rank() -> None:
    from array import array

    samples = array("q", [5, 1, 4, 2, 3])
    assert [percentile(samples, part) for part in (0.0, 0.2, 0.5, 0.99, 1.0)] == [1, 1, 3, 5, 5]
    assert percentile(array("q"), 0.5) == 0
