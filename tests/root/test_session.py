"""The steps of a session: what is decided before anybody is called, what is set up once and what again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dllama_proto.endpoint import Endpoint
from dllama_proto.enums import FloatType
from dllama_worker.demo import MODEL_PATH
from dllama_worker.errors import MachineError, PeerLost, UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.cluster_setup import ClusterSetup
from dllama_worker.root.inference import Inference
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session, plan_session
from dllama_worker.root.streaming import count_weight_bytes
from tests.helpers.reports import Collected
from tests.helpers.serving import serving

#: Where nobody listens: whoever is called there cannot be reached.
_NOBODY = Endpoint("127.0.0.1", 9)


def test_a_session_is_planned_before_anybody_is_called() -> None:
    report = Collected()
    plan = plan_session(RootOptions("inference", workers=(_NOBODY,), max_seq_len=64), report)
    assert plan.partition.n_nodes == len(plan.layout.nodes) == 2
    assert plan.model.header.seq_len == 64
    assert plan.tokenizer.vocab_size == plan.model.header.vocab_size
    assert [event for event, _, _ in report.told] == ["demo_model", "compute"]


def test_reconnect_and_local_workers_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="--reconnect goes with --workers"):
        plan_session(RootOptions("inference", local_workers=1, reconnect=5.0), Report())


def test_a_root_without_the_memory_for_its_part_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllama_worker.root.session.memory_limit", lambda limit: 1000)
    with pytest.raises(MachineError):
        plan_session(RootOptions("inference", workers=(_NOBODY,)), Report())


def test_sync_types_follow_the_weights_unless_one_is_asked_for() -> None:
    plan = plan_session(RootOptions("inference"), Report())
    assert {pipe.size.float_type for pipe in plan.layout.net.pipes} == {FloatType.F32, FloatType.Q80}
    with pytest.raises(UsageError, match="q40 weights go with --buffer-float-type q80, not f32"):
        plan_session(RootOptions("inference", buffer_float_type="f32"), Report())


@pytest.mark.slow
@pytest.mark.parametrize("stream_weights", [True, False])
def test_workers_are_set_up_again_for_a_root_that_keeps_its_weights(stream_weights: bool) -> None:
    """What is loaded the second time is the workers' part alone, and the logits are the same to the bit."""
    report = Collected()
    with serving(2, model=Path(MODEL_PATH)) as addresses:
        options = RootOptions(
            "inference", workers=tuple(addresses), sync_timeout=7.0, stream_weights=stream_weights
        )
        plan = plan_session(options, Report())
        cluster = Cluster(addresses)
        setup = ClusterSetup(options, plan.model, plan.partition, plan.layout, cluster, report)
        try:
            root = setup.start(plan.table, None)
            header = plan.model.header
            inference = Inference(root, cluster, vocab_size=header.vocab_size, seq_len=header.seq_len)
            first = inference.forward([1, 2, 3], ForwardTimes()).copy()
            inference.finish()
            cluster.close()
            setup.restart(root)
            assert {link.stall_timeout for link in cluster.links.values()} == {7.0}
            inference.position = 0
            again = inference.forward([1, 2, 3], ForwardTimes()).copy()
            inference.finish()
        finally:
            cluster.close()
    np.testing.assert_array_equal(first, again)
    root_bytes, *worker_bytes = (
        count_weight_bytes(plan.model, plan.partition, [node]) for node in range(3)
    )
    streamed = sum(worker_bytes) if stream_weights else 0
    assert [fields["bytes"] for fields in report.of("weights_loaded")] == [root_bytes + streamed, streamed]
    said = [message for event, message, _ in report.told if event == "weights_loaded"]
    assert f"for {'3 nodes' if stream_weights else '1 node'} in" in said[0]


def test_no_sync_timeout_is_for_ever() -> None:
    with serving(1) as addresses:
        options = RootOptions("inference", workers=tuple(addresses), sync_timeout=0.0)
        with open_session(options, Report()) as session:
            assert [link.stall_timeout for link in session.cluster.links.values()] == [None]
            session.inference.finish()


def test_what_was_opened_is_closed_where_a_worker_cannot_be_reached(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    options = RootOptions("inference", workers=(_NOBODY,), trace=trace)
    with pytest.raises(PeerLost, match=r"node 1 \(127\.0\.0\.1:9\)"), open_session(options, Report()):
        pytest.fail("there is no worker")
    json.loads(trace.read_text())
