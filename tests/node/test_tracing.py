"""``--trace``: a root and its worker write when each op and sync ran, and the same text comes out."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.cli import main
from dllama_proto.enums import FloatType, SyncType
from dllama_proto.messages import NetConfig, NodeConfig, PipeConfig, SegmentConfig, Size3D, SyncConfig
from dllama_worker.node.tracing import Tracer
from dllama_worker.report import Report
from dllama_worker.worker.cli import main as worker_main
from tests.helpers.full_disk import FULL_DISK
from tests.helpers.processes import worker_process


def infer(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "dllama_worker.root", "inference", "--json", "--temperature", "0"]
    command += ["--prompt", "ROMEO:", "--steps", "12", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def spans(trace: dict[str, Any], node: int) -> Counter[str]:
    return Counter(e["name"] for e in trace["traceEvents"] if e["ph"] == "X" and e["pid"] == node)


@pytest.mark.slow
def test_root_and_worker_write_what_they_do(tmp_path: Path) -> None:
    with worker_process("--trace", str(tmp_path / "worker.json")) as worker:
        traced = infer("--workers", f"127.0.0.1:{worker.port}", "--trace", str(tmp_path / "root.json"))
        plain = infer("--workers", f"127.0.0.1:{worker.port}")
        assert worker.terminate() == 0
    assert traced["text"] == plain["text"]
    sources = [str(tmp_path / name) for name in ("root.json", "worker.json")]
    assert main(["timeline", "--merge", *sources, "-o", str(tmp_path / "both.json")]) == 0
    both = json.loads((tmp_path / "both.json").read_text())
    root, node = spans(both, 0), spans(both, 1)
    # The worker has served two sessions, the root one.
    assert root["EMBEDDING embedding 0"] > 0
    assert node["MATMUL block_matmul_q 0"] == 2 * root["MATMUL block_matmul_q 0"]
    assert node["ZQ layer 0 attention"] == 2 * root["ZQ layer 0 attention"] == 2 * root["LG output"]
    for event in both["traceEvents"]:
        assert event["ph"] != "X" or event["dur"] >= 0
    # A sync lasts until the other node has come to it as well: on one machine clocks are one.
    first = {e["pid"]: e for e in reversed(both["traceEvents"]) if e["name"] == "ZQ layer 0 attention"}
    ends = [e["ts"] + e["dur"] for e in first.values()]
    assert all(end >= max(e["ts"] for e in first.values()) - 1000 for end in ends)


def test_a_wrong_path_for_the_trace_is_the_callers_fault(tmp_path: Path) -> None:
    assert worker_main(["--port", "0", "--once", "--trace", str(tmp_path / "no" / "x.json")]) == 2


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_the_trace_and_no_session(caplog: pytest.LogCaptureFixture) -> None:
    tracer = Tracer(FULL_DISK, Report())
    config = NodeConfig(0, (), (SegmentConfig((SyncConfig(0, SyncType.WITH_ROOT),), ()),))
    net = NetConfig(1, 1, (PipeConfig(Size3D.of(FloatType.F32, x=1), "X"),), ())
    synced = []

    class Synced:
        def sync(self, segment_index: int, batch_size: int) -> None:
            synced.append(segment_index)

    _, synchronizer = tracer.watch(net, config, [[]], Synced())
    n = 1000  # more than the file keeps before it writes
    for _ in range(n):
        synchronizer.sync(0, 1)
    tracer.close()
    assert len(synced) == n
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "cannot write /dev/full: No space left on device; no more is traced"
    ]
