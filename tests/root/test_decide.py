"""``--split auto`` in its three parts: how much is measured, what is decided by it, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllama_proto.enums import FloatType
from dllama_worker.demo import MODEL_PATH
from dllama_worker.errors import UsageError
from dllama_worker.model.opening import open_model
from dllama_worker.model.presets import preset_header
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.report import Report
from dllama_worker.root.decide import decide_by_speed
from dllama_worker.root.options import RootOptions
from dllama_worker.root.planning import calibrate
from dllama_worker.root.planning.calibrate import SyncTimes
from dllama_worker.root.planning.demand import count_demand
from dllama_worker.root.planning.estimate import NodeSpeed, TokenTime
from dllama_worker.root.planning.measure import ClusterSpeed, measure_cluster, probe_bytes
from dllama_worker.root.planning.split_report import report_expected, report_measured, report_split
from dllama_worker.sharding.apportion import partition_by_weights, partition_evenly
from dllama_worker.sharding.split import for_each_node, parse_split
from tests.helpers.reports import Collected
from tests.helpers.serving import serving

_GB = 10**9
_HEADER = preset_header("llama-3.1-8b", FloatType.Q40).with_max_seq_len(4096)


def _speed(*gigabytes: float) -> ClusterSpeed:
    """Nodes that read so many 10^9 bytes of weights a second."""
    return ClusterSpeed(
        tuple(NodeSpeed(_GB * each) for each in gigabytes), SyncTimes(1e-4, 1e-3, 1e8), seconds=1.0
    )


# Measured -------------------------------------------------------------------------------------------


def test_a_node_is_measured_with_what_links_take_in_three_seconds() -> None:
    assert probe_bytes(30e6, n_nodes=2) == 90_000_000
    assert probe_bytes(30e6, n_nodes=4) == 30_000_000


def test_a_node_is_measured_with_more_than_caches_hold_but_not_all_day() -> None:
    assert probe_bytes(1e3, n_nodes=2) == 16 << 20
    assert probe_bytes(1e12, n_nodes=2) == 256 << 20


def test_probes_leave_half_of_the_smallest_memory() -> None:
    assert probe_bytes(1e12, 3, memory=(8 * _GB, 20_000_000, 8 * _GB)) == 10_000_000


def test_remote_workers_are_measured_and_go_on_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_PACE_SECONDS", 0.0)
    monkeypatch.setattr(calibrate, "_SYNC_SECONDS", 0.0)
    model = open_model(Path(MODEL_PATH))
    table = choose_kernels("", Report())
    even = partition_evenly(model.header, 2)
    with serving(1) as addresses:
        options = RootOptions("inference", workers=tuple(addresses), split=parse_split("auto"))
        for _ in range(2):
            speed = measure_cluster(options, model, even, FloatType.Q80, (1 << 20,) * 2, table)
            assert len(speed.nodes) == 2
            assert all(node.bytes_per_second > 0 for node in speed.nodes)
            assert speed.seconds > 0
    demand = count_demand(model.header, even, FloatType.Q80)
    assert speed.estimate(demand).sync == pytest.approx(
        speed.syncs.layer * (len(demand.syncs) - 1) + speed.syncs.last
    )


# Decided --------------------------------------------------------------------------------------------


def test_nodes_get_work_by_their_speed() -> None:
    decision = decide_by_speed(_HEADER, FloatType.Q80, _speed(20, 10, 10))
    assert decision.partition == partition_by_weights(_HEADER, [2, 1, 1])
    assert decision.split == "100:50:50 (by speed)"
    assert decision.expected.seconds < decision.even.seconds / 1.03


def test_an_even_split_stays_where_another_would_hardly_be_faster() -> None:
    decision = decide_by_speed(_HEADER, FloatType.Q80, _speed(10.1, 10, 9.9, 10))
    assert decision.partition.is_even
    assert decision.split == "even (no other would be much faster)"
    assert decision.expected == decision.even


def test_an_even_split_does_not_stay_where_it_does_not_fit() -> None:
    even = partition_evenly(_HEADER, 2)
    needs = count_demand(_HEADER, even, FloatType.Q80).nodes[1].memory
    memory = [16 * _GB, needs - 1]
    decision = decide_by_speed(_HEADER, FloatType.Q80, _speed(10, 10), memory)
    assert not decision.partition.is_even
    assert decision.split.endswith("(by speed, less for node 1 by its memory)")
    assert count_demand(_HEADER, decision.partition, FloatType.Q80).lacking(memory) == []


def test_a_root_that_is_to_do_nothing_gets_no_heads() -> None:
    decision = decide_by_speed(_HEADER, FloatType.Q80, _speed(10, 10, 5), root_share=0.0)
    assert [len(share.q_heads) > 0 for share in decision.partition.shares] == [False, True, True]


def test_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(UsageError, match="does not fit so"):
        decide_by_speed(_HEADER, FloatType.Q80, _speed(10, 10), [_GB, _GB])


def test_one_value_is_for_all_nodes_and_several_are_for_each() -> None:
    assert for_each_node("--memory", (5,), 3) == (5, 5, 5)
    assert for_each_node("--memory", (5, 6), 2) == (5, 6)
    with pytest.raises(UsageError, match="--memory has 2 values, expected 1 or 3, one for each node"):
        for_each_node("--memory", (5, 6), 3)


# Said -----------------------------------------------------------------------------------------------


def test_every_node_is_named_with_its_speed() -> None:
    report = Collected()
    report_measured(report, RootOptions("inference", local_workers=2), _speed(10, 5, 2.5))
    [(event, message, fields)] = report.told
    assert event == "calibrated"
    assert (
        "root 10.0 GB/s, node 1 (local) 5.0 GB/s, node 2 (local) 2.5 GB/s; a sync takes 0.10 ms" in message
    )
    assert fields["bytes_per_second"] == [10 * _GB, 5 * _GB, 2.5 * _GB]
    assert (fields["layer_sync_seconds"], fields["last_sync_seconds"]) == (1e-4, 1e-3)


def test_who_gets_how_much_is_said_in_counts() -> None:
    report = Collected()
    report_split(report, "3:1", partition_by_weights(_HEADER, [3, 1]))
    [(event, message, fields)] = report.told
    assert (event, fields["split"]) == ("split", "3:1")
    assert message.startswith("split 3:1: query heads 24:8, key-value heads 6:2, feed-forward columns ")
    assert (fields["query_heads"], fields["key_value_heads"]) == ([24, 8], [6, 2])
    assert sum(fields["feed_forward_columns"]) == _HEADER.ff_dim


def test_what_to_expect_is_said_beside_an_even_split() -> None:
    report = Collected()
    report_expected(report, TokenTime(0.075, 0.025), TokenTime(0.175, 0.025))
    [(event, message, fields)] = report.told
    assert event == "expected"
    assert message == (
        "expected: 10.00 tokens/s (75.0 ms computing, 25.0 ms in syncs); with an even split 5.00"
    )
    assert (fields["tokens_per_second"], fields["even_tokens_per_second"]) == (10.0, 5.0)
