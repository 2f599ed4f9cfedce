"""``dllama-proto timeline``: traces of captures, and traces put together."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.cli import main
from dllama_proto.show.trace_format import TraceWriter
from tests.helpers.captures import CASES, capture_path, load
from tests.helpers.packets import golden_packets, pcap


def trace_of(case: str, tmp_path: Path) -> dict[str, Any]:
    output = tmp_path / "trace.json"
    assert main(["timeline", str(capture_path(case)), "-o", str(output)]) == 0
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def names(trace: dict[str, Any], what: str) -> dict[tuple[int, int | None], str]:
    return {
        (event["pid"], event.get("tid")): event["args"]["name"]
        for event in trace["traceEvents"]
        if event["ph"] == "M" and event["name"] == what
    }


@pytest.mark.parametrize("case", CASES)
def test_every_node_has_a_track_of_every_sync(case: str, tmp_path: Path) -> None:
    session = load(case)
    trace = trace_of(case, tmp_path)
    events = trace["traceEvents"]
    assert set(names(trace, "process_name")) == {(node, None) for node in range(session.n_nodes)}
    tracks = names(trace, "thread_name")
    spans: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            spans[event["pid"], tracks[event["pid"], event["tid"]]].append(event)
    forwards = [packet for packet in session.control_packets if packet[1]]
    per_forward = session.index["worker_config"]["n_segments"]
    for node in range(session.n_nodes):
        assert len(spans[node, "sync"]) == per_forward * len(forwards)
        assert 0 < len(spans[node, "compute"]) <= len(spans[node, "sync"])
        for track in ("sync", "compute"):
            ordered = sorted(spans[node, track], key=lambda event: event["ts"])
            for before, after in pairwise(ordered):
                assert before["ts"] + before["dur"] <= after["ts"] + 0.001
    rows = [event["args"]["rows"] for event in spans[1, "sync"]]
    assert rows == [n for _, n in forwards for _ in range(per_forward)]


def test_arrows_lead_from_each_sender_to_each_receiver(tmp_path: Path) -> None:
    trace = trace_of("gqa-q40-4n", tmp_path)
    ends: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for event in trace["traceEvents"]:
        if event["ph"] in "sf":
            ends[event["id"]][event["ph"]] = event
    pairs = Counter((pair["s"]["pid"], pair["f"]["pid"]) for pair in ends.values())
    forwards, layers = 6, 3
    assert pairs[1, 2] == forwards * 2 * layers
    assert pairs[0, 3] == forwards * (2 * layers + 1)
    assert pairs[3, 0] == forwards * (2 * layers + 1)
    assert all(pair["s"]["ts"] <= pair["f"]["ts"] for pair in ends.values())


@pytest.mark.parametrize("case", CASES)
def test_both_ends_of_an_arrow_lie_in_a_slice_of_the_same_sync(case: str, tmp_path: Path) -> None:
    """Viewers drop an arrow whose end is in no slice; they count whole nanoseconds, cut off (Perfetto)."""

    def nanoseconds(microseconds: float) -> int:
        return int(microseconds * 1000)

    trace = trace_of(case, tmp_path)
    slices: dict[tuple[int, int], list[tuple[int, int, str]]] = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            began = nanoseconds(event["ts"])
            slices[event["pid"], event["tid"]].append(
                (began, began + nanoseconds(event["dur"]), event["name"])
            )
    holding: dict[int, list[str]] = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] in "sf":
            time = nanoseconds(event["ts"])
            [name] = [n for began, end, n in slices[event["pid"], event["tid"]] if began <= time < end]
            assert name.split()[0] == event["name"].split()[0]
            holding[event["id"]].append(name)
    assert holding
    assert all(len(names) == 2 and names[0] == names[1] for names in holding.values())


def test_a_clock_that_stands_still_leaves_room_for_arrows(tmp_path: Path) -> None:
    """A capture may have one time for everything."""
    output = tmp_path / "trace.json"
    capture = tmp_path / "still.pcap"
    capture.write_bytes(pcap([(10**9, *packet[1:]) for packet in golden_packets("tiny-q40-2n")]))
    assert main(["timeline", str(capture), "-o", str(output)]) == 0
    events = json.loads(output.read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    ends = [event for event in events if event["ph"] in "sf"]
    assert ends
    for end in ends:
        assert any(
            (s["pid"], s["tid"]) == (end["pid"], end["tid"]) and s["ts"] <= end["ts"] < s["ts"] + s["dur"]
            for s in slices
        )


@pytest.mark.parametrize("case", ["tiny-q40-2n", "qwen3-q40-4n"])
def test_counters_end_at_all_bytes(case: str, tmp_path: Path) -> None:
    session = load(case)
    counters = {
        event["pid"]: event["args"]
        for event in trace_of(case, tmp_path)["traceEvents"]
        if event["ph"] == "C"
    }
    for node, values in counters.items():
        sent = sum(len(stream.data) for stream in session.streams if stream.sender == node)
        assert values["sent"] == sent


def test_traces_are_put_together_on_one_clock(tmp_path: Path) -> None:
    for name, epoch, node in (("a", 1_000_000_000_000, 0), ("b", 1_000_000_002_000, 1)):
        with (tmp_path / name).open("w") as file, TraceWriter(file) as writer:
            writer.span(node, "ops", name, epoch, epoch + 500)
            writer.arrow(1, "x", (node, "ops", epoch), (node, "ops", epoch + 5))
    output = tmp_path / "both.json"
    sources = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["timeline", "--merge", *sources, "-o", str(output)]) == 0
    both = json.loads(output.read_text())
    spans = {event["name"]: event for event in both["traceEvents"] if event["ph"] == "X"}
    assert (spans["a"]["ts"], spans["b"]["ts"]) == (0.0, 2.0)
    assert spans["a"]["tid"] != spans["b"]["tid"]
    assert len({event["id"] for event in both["traceEvents"] if event["ph"] in "sf"}) == 2
    assert both["otherData"]["epoch_ns"] == "1000000000000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\x1f\x8b",
        2000 * "[",
        '{"traceEvents": [{}], "otherData": {"epoch_ns": "1"}}',
        '{"traceEvents": [{"pid": 1, "ph": "X", "ts": "1"}], "otherData": {"epoch_ns": "1"}}',
        '{"traceEvents": [{"pid": 1, "ph": "X", "tid": []}], "otherData": {"epoch_ns": "1"}}',
        '{"traceEvents": [], "otherData": {"epoch_ns": []}}',
    ],
)
def test_what_is_no_trace_is_refused_by_name(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    output = str(tmp_path / "out.json")
    assert main(["timeline", "--merge", str(tmp_path / "x.json"), "-o", output]) == 2
    assert "x.json: expected a trace written by this project" in capsys.readouterr().err


def test_captures_are_not_put_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = str(capture_path("tiny-q40-2n"))
    assert main(["timeline", capture, capture, "-o", str(tmp_path / "out.json")]) == 2
    assert "expected one capture, got several" in capsys.readouterr().err
