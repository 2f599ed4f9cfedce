"""``--split auto``: probes that any node accepts, and what is made of what they measure."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.endpoint import Endpoint
from dllama_proto.enums import FloatType
from dllama_proto.limits import Limits
from dllama_proto.model_shapes import MODEL_SHAPES
from dllama_proto.verify import verify_net_config, verify_node_config
from dllama_worker import Worker
from dllama_worker.demo import MODEL_PATH
from dllama_worker.errors import PeerLost, UsageError
from dllama_worker.model.opening import open_model
from dllama_worker.model.presets import preset_header
from dllama_worker.node.binding import bind
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.node.memory import NodeMemory
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.decide import decide_partition
from dllama_worker.root.options import RootOptions
from dllama_worker.root.planning import calibrate
from dllama_worker.root.planning.probe import N_SYNCS, make_pace_probe, make_sync_probe
from dllama_worker.sharding.apportion import partition_evenly
from dllama_worker.sharding.split import parse_split
from tests.helpers.serving import serving

REPOSITORY = Path(__file__).parents[2]
_TABLE = choose_kernels("", Report())
_AUTO = parse_split("auto")


@pytest.mark.parametrize("preset", MODEL_SHAPES)
@pytest.mark.parametrize("weights", [FloatType.F32, FloatType.Q40])
def test_probes_are_sound_and_no_larger_than_asked_for(preset: str, weights: FloatType) -> None:
    header = preset_header(preset, weights)
    sync = FloatType.F32 if weights is FloatType.F32 else FloatType.Q80
    probe = make_pace_probe(header, 3, sync, 1 << 20)
    assert list(verify_net_config(probe.net, Limits())) == []
    for node in probe.nodes:
        assert list(verify_node_config(node, probe.net, Limits())) == []
        bound = bind(probe.net, node, NodeMemory(probe.net, node), _TABLE, 1)
        pieces = {
            (p.header.name, p.header.op_index): p.header.n_bytes for p in probe.weights(node.node_index)
        }
        held = {key: op.context.weight.n_bytes for key, op in bound.weighted.items() if op.context.weight}
        assert pieces == held
        assert sum(pieces.values()) == probe.n_matmuls * probe.matmul_bytes
    row = probe.matmul_bytes // probe.nodes[0].segments[2].ops[0].weight_size.x
    assert probe.n_matmuls * probe.matmul_bytes <= max(1 << 20, 32 * row)
    net, nodes = make_sync_probe(header, partition_evenly(header, 3), sync)
    assert list(verify_net_config(net, Limits())) == []
    for node in nodes:
        assert list(verify_node_config(node, net, Limits())) == []
        assert len(node.segments) == N_SYNCS + 2


def test_workers_are_measured_and_listen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_PACE_SECONDS", 0.0)
    monkeypatch.setattr(calibrate, "_SYNC_SECONDS", 0.0)
    model = open_model(Path(MODEL_PATH))
    with serving(2) as addresses:
        syncs = calibrate.measure_syncs(
            model, partition_evenly(model.header, 3), FloatType.Q80, Cluster(addresses), _TABLE
        )
        assert 0 < syncs.layer < 1
        assert syncs.of_segments(4) == [syncs.layer] * 3 + [syncs.last]
        for root_works in (True, False):
            speeds = calibrate.measure_pace(
                model,
                FloatType.Q80,
                Cluster(addresses),
                _TABLE,
                1,
                max_bytes=1 << 20,
                root_works=root_works,
            )
            assert len(speeds) == 3
            assert all(speed.bytes_per_second > 0 and speed.op_seconds > 0 for speed in speeds)
        assert speeds[0] == max(speeds[1:], key=lambda speed: speed.bytes_per_second)


def test_a_worker_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Endpoint("127.0.0.1", listener.getsockname()[1])
        closer = threading.Thread(target=lambda: listener.accept()[0].close())
        closer.start()
        model = open_model(Path(MODEL_PATH))
        with pytest.raises(PeerLost, match="node 1"):
            calibrate.measure_pace(
                model, FloatType.Q80, Cluster([address]), _TABLE, 1, max_bytes=1, root_works=False
            )
        closer.join(10)


def test_a_patient_root_waits_until_a_worker_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Endpoint("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(PeerLost, match="Connection refused"):
        Cluster([address]).connect()
    worker = Worker(port=address.port)
    thread = threading.Thread(target=worker.serve_forever)
    started = time.monotonic()
    timer = threading.Timer(0.2, thread.start)
    timer.start()
    cluster = Cluster([address], patience=10.0)
    try:
        cluster.connect()
        assert time.monotonic() - started >= 0.2
    finally:
        cluster.close()
        timer.join(10)
        worker.stop()
        thread.join(10)
        worker.close()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"split": _AUTO, "stream_weights": False}, "--weights local goes with --split even, not auto"),
        ({"memory": (1, 2, 3)}, "--memory has 3 values, expected 1 or 2"),
        ({"memory": (10**6,)}, "the model does not fit so: node 0 needs 3.3 MB and has 1.0 MB"),
        (
            {"workers": (Endpoint("127.0.0.1", 9),) * 8, "split": _AUTO},
            "9 computing nodes cannot share",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_connection(options: dict[str, Any], complaint: str) -> None:
    asked = RootOptions("inference", **{"workers": (Endpoint("127.0.0.1", 9),)} | options)
    with pytest.raises(UsageError, match=complaint):
        decide_partition(asked, open_model(Path(MODEL_PATH)), FloatType.Q80, _TABLE, Report())


def test_a_root_alone_has_nothing_to_measure() -> None:
    options = RootOptions("inference", split=_AUTO)
    model = open_model(Path(MODEL_PATH))
    assert decide_partition(options, model, FloatType.Q80, _TABLE, Report()).n_nodes == 1


@pytest.mark.slow
def test_auto_says_what_it_measured_and_chose_and_expects() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dllama_worker.root", "inference", "--prompt", "ROMEO:", "--steps", "40",
         "--temperature", "0", "--local-workers", "2", "--split", "auto", "--root-share", "0",
         "--memory", "1G", "--json", "--log-format", "json"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = {entry["event"]: entry for entry in map(json.loads, result.stderr.splitlines())}
    assert len(said["calibrated"]["bytes_per_second"]) == 3
    assert said["split"]["query_heads"][0] == 0
    assert sum(said["split"]["query_heads"]) == 8
    assert said["expected"]["tokens_per_second"] >= said["expected"]["even_tokens_per_second"] > 0
    told = json.loads(result.stdout)
    assert len(told["tokens"]) == 35
    # Forwards that only measured are no tokens: every worker has evaluated as many as the root.
    assert len({node["tokens"] for node in told["nodes"]}) == 1
    assert told["nodes"][0]["tokens"] < 50
