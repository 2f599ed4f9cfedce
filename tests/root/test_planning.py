"""Plans: what is counted is what would be sent, and what is said is what would happen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.enums import FloatType
from dllama_proto.model_file import encode_model_header, tensor_entries
from dllama_proto.model_header import ArchType, ModelHeader, ModelKey
from dllama_proto.sync_plan import plan_link
from dllama_proto.terminal import Terminal
from dllama_worker.errors import UsageError
from dllama_worker.model.presets import preset_header
from dllama_worker.node.memory import memory_need
from dllama_worker.root.cli import main
from dllama_worker.root.flags import make_parser
from dllama_worker.root.layout import build_layout
from dllama_worker.root.planning.choose import check_fit, choose_partition
from dllama_worker.root.planning.demand import NodeDemand, SegmentWork, count_demand
from dllama_worker.root.planning.estimate import NodeSpeed, estimate, sync_seconds
from dllama_worker.root.planning.links import LINKS, LinkSpeed, parse_link
from dllama_worker.root.planning.options import PlanOptions, plan_options
from dllama_worker.root.planning.plan import make_plan
from dllama_worker.root.planning.show import print_plan
from dllama_worker.sharding.apportion import partition_by_weights, partition_evenly
from dllama_worker.sharding.split import parse_memory

_GB = 10**9
_LLAMA_8B = preset_header("llama-3.1-8b", FloatType.Q40).with_max_seq_len(4096)


@pytest.mark.parametrize("preset", ["gqa", "qwen3", "qwen3_moe"])
@pytest.mark.parametrize("weights", [[1.0], [3.0, 1.0], [0.0, 1.0, 2.0, 1.0, 1.0]])
def test_what_is_counted_is_what_the_configs_hold(preset: str, weights: list[float]) -> None:
    header = preset_header(preset, FloatType.Q40)
    partition = partition_by_weights(header, weights)
    layout = build_layout(header, partition, FloatType.Q80)
    demand = count_demand(header, partition, FloatType.Q80)
    for node, counted in zip(layout.nodes, demand.nodes, strict=True):
        need = memory_need(layout.net, node)
        assert (counted.weights, counted.pipes) == (need.weights, need.pipes)
        assert counted.buffers + counted.kv_cache == need.buffers
        assert counted.memory == need.total
        assert len(counted.segments) == len(node.segments)
        assert [work.n_ops for work in counted.segments] == [len(segment.ops) for segment in node.segments]
    if len(weights) > 2:
        link = plan_link(layout.net, layout.nodes[1], 0)
        other = plan_link(layout.net, layout.nodes[1], 2)
        assert demand.links() == {
            "root to worker": sum(transfer.size for transfer in link.receives),
            "worker to root": sum(transfer.size for transfer in link.sends),
            "worker to worker": sum(transfer.size for transfer in other.sends),
        }
    assert len(demand.links()) == min(3, 2 * (len(weights) - 1))


def test_of_experts_only_the_active_ones_are_read() -> None:
    header = preset_header("qwen3_moe", FloatType.Q40)
    demand = count_demand(header, partition_evenly(header, 2), FloatType.Q80)
    node = demand.nodes[1]
    read = sum(work.weight_bytes for work in node.segments)
    experts = header.n_layers * header.n_experts * 3 * header.dim * header.ff_dim // 2 * 18 // 32
    assert node.weights - read == experts * 6 // 8  # 2 of 8 are active


def test_the_root_reads_one_row_of_its_embedding() -> None:
    demand = count_demand(_LLAMA_8B, partition_evenly(_LLAMA_8B, 2), FloatType.Q80)
    assert demand.nodes[0].segments[0].weight_bytes == 4 * _LLAMA_8B.dim
    assert demand.nodes[0].weights - demand.nodes[1].weights == 4 * _LLAMA_8B.dim * _LLAMA_8B.vocab_size


def test_the_slowest_node_of_each_segment_counts() -> None:
    fast, slow = NodeSpeed(100.0, 0.5), NodeSpeed(10.0, 0.25)
    nodes = [
        NodeDemand(0, 0, 0, 0, (SegmentWork(1000, 0, 2), SegmentWork(10, 20, 2))),
        NodeDemand(0, 0, 0, 0, (SegmentWork(10, 0, 2), SegmentWork(100, 0, 2))),
    ]
    assert estimate(nodes, [fast, slow], [3.0, 4.0]).compute == pytest.approx((10 + 1.0) + (10 + 0.5))
    assert estimate(nodes, [fast, slow], [3.0, 4.0]).sync == 7
    later = estimate(nodes, [fast, slow], [3.0, 4.0], position=100)
    assert later.compute == pytest.approx((10 + 1.0) + (20.1 + 1.0))
    assert later.tokens_per_second == 1 / later.seconds


def test_syncs_take_a_latency_their_bytes_and_their_messages() -> None:
    demand = count_demand(_LLAMA_8B, partition_evenly(_LLAMA_8B, 4), FloatType.Q80)
    switch = LinkSpeed("", bits_per_second=8e6, latency=1.0, message_seconds=0.1)
    row = 4096 // 32 * 34
    [first], [layer], *_, [last] = demand.syncs
    assert sync_seconds([first], switch) == pytest.approx(1 + 3 * 4 * 4096 / 1e6 + 3 * 0.1)
    assert sync_seconds([layer], switch) == pytest.approx(1 + 3 * row / 1e6 + 6 * 0.1)
    assert sync_seconds([last], switch) == pytest.approx(1 + 3 * 4 * 128_256 / 4 / 1e6 + 3 * 0.1)
    radio = LinkSpeed("", bits_per_second=8e6, latency=1.0, is_shared=True, message_seconds=0.1)
    assert sync_seconds([layer], radio) == pytest.approx(1 + 12 * row / 1e6 + 6 * 0.1)


def test_one_node_has_no_syncs() -> None:
    demand = count_demand(_LLAMA_8B, partition_evenly(_LLAMA_8B, 1), FloatType.Q80)
    assert sum(sync_seconds(segment, LINKS["wifi"]) for segment in demand.syncs) == 0
    assert demand.links() == {}


def test_auto_goes_by_speed() -> None:
    choice = choose_partition(_LLAMA_8B, FloatType.Q80, [2.0, 1.0, 1.0])
    assert choice.partition == partition_by_weights(_LLAMA_8B, [2, 1, 1])
    assert (choice.split, choice.limited) == ("100:50:50", ())


def test_who_lacks_memory_gets_less_and_the_others_more() -> None:
    memory = [8 * _GB, 1 * _GB, 8 * _GB]
    choice = choose_partition(_LLAMA_8B, FloatType.Q80, [1.0, 1.0, 1.0], memory)
    free = choose_partition(_LLAMA_8B, FloatType.Q80, [1.0, 1.0, 1.0])
    assert choice.limited == (1,)
    assert choice.demand.nodes[1].memory <= 1 * _GB < free.demand.nodes[1].memory
    assert choice.demand.nodes[1].memory > 0.6 * _GB
    assert choice.demand.nodes[2].memory > free.demand.nodes[2].memory


def test_what_fits_nowhere_is_refused_by_node() -> None:
    with pytest.raises(UsageError, match=r"does not fit so: .*node 1 needs .* GB and has 1.0 GB"):
        choose_partition(_LLAMA_8B, FloatType.Q80, [1.0, 1.0], [3 * _GB, 1 * _GB])
    demand = count_demand(_LLAMA_8B, partition_evenly(_LLAMA_8B, 2), FloatType.Q80)
    check_fit(demand, [8 * _GB] * 2)
    with pytest.raises(UsageError, match=r"node 0 needs .* and has 2\.0 GB"):
        check_fit(demand, [2 * _GB, 8 * _GB])


def test_links_and_memory_are_read_as_people_write_them() -> None:
    assert parse_link("wifi") is LINKS["wifi"]
    assert parse_link("250").bits_per_second == 250e6
    assert parse_link("1gbe").with_latency(0.5).latency == 0.5
    assert parse_memory("8G:500MB:1.5g") == (8 * _GB, 500 * 10**6, 1_500_000_000)
    for text in ("", "fast", "-3", "nan"):
        with pytest.raises(ValueError, match=r"expected 1gbe, 2\.5gbe"):
            parse_link(text)
    for text in ("", "8Q", "8G:", "-1G"):
        with pytest.raises(ValueError, match="expected bytes for each node"):
            parse_memory(text)


def _plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_command_tells_machines_everything(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _plan(
        capsys, "--model", "llama-3.1-70b", "--nodes", "11", "--memory", "4G", "--max-seq-len", "4096",
        "--link", "2.5gbe", "--latency", "0.2", "--speed", "20",
    )  # fmt: skip
    assert sum(node["query_heads"][1] - node["query_heads"][0] for node in plan["nodes"]) == 64
    assert plan["nodes"][-1]["hidden"][1] == 28_672
    assert not plan["nodes"][0]["fits"]  # the embedding alone takes 4.2 GB
    assert plan["link"] == {"name": "2.5gbe", "bits_per_second": 2.35e9, "latency": 0.0002, "shared": False}
    assert plan["possible_nodes"] == list(range(1, 65))
    assert plan["cpp_root_nodes"] == [1, 2, 4, 8]
    assert "65 computing nodes cannot share this model: it has 64 query heads" in plan["impossible"]
    beginning, end = plan["token"]["at_beginning"], plan["token"]["at_end_of_context"]
    assert beginning["tokens_per_second"] > end["tokens_per_second"]
    assert beginning["sync_seconds"] == end["sync_seconds"] > 162 * 0.0002


def test_the_command_shows_people_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", "gqa", "--split", "5:1:1:1", "--memory", "1M"]) == 0
    shown = capsys.readouterr().out
    assert "root          0-4       0-2    0-319" in shown
    assert "tokens/s" in shown
    assert "possible with equal weights: 1 to 8 nodes (as the C++ root splits: 1, 2, 4)" in shown
    assert shown.endswith("does not fit: node 0\n")


def test_a_file_is_planned_like_its_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(__file__).parents[1] / "data/golden/models/tiny-q40.m"
    file, shape = (_plan(capsys, "--model", name, "--nodes", "2") for name in (str(model), "tiny"))
    assert file | {"model": "tiny"} == shape


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "gqa", "--nodes", "9"], "nearest possible: 8 nodes"),
        (["--model", "nothing", "--nodes", "2"], "neither a file nor one of the known shapes: tiny, gqa"),
        (["--model", "gqa", "--nodes", "3", "--split", "1:1"], "has 2 weights, expected 3"),
    ],
)
def test_what_is_impossible_is_said(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "gqa"], "--nodes N says how many nodes there are"),
        (["--model", "gqa", "--nodes", "2", "--speed", "1:2:3"], "--speed has 3 values, expected 1 or 2"),
        (
            ["--model", "gqa", "--split", "1:1", "--root-share", "0"],
            "--root-share goes with an even or auto",
        ),
        (["--model", "gqa", "--nodes", "2", "--link", "fast"], "expected 1gbe"),
    ],
)
def test_arguments_that_contradict_each_other(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", *arguments])
    assert complaint in capsys.readouterr().err


def _f32_model(path: Path, **sizes: int) -> None:
    """Write a model of zeros, float32."""
    keys = {ModelKey[name.upper()]: value for name, value in sizes.items()}
    header = ModelHeader.from_pairs(
        [(ModelKey.ARCH, ArchType.LLAMA), (ModelKey.WEIGHT_FLOAT_TYPE, FloatType.F32), *keys.items()]
    )
    last = max(tensor_entries(header), key=lambda entry: entry.offset)
    with path.open("wb") as file:
        file.write(encode_model_header(header))
        file.truncate(last.offset + last.n_bytes)


def test_a_count_that_only_the_cpp_root_cuts_is_possible_and_the_next_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """96 float32 columns are three units of 32, but the C++ root gives four nodes 24 each."""
    model = tmp_path / "narrow.m"
    _f32_model(model, dim=64, hidden_dim=96, n_layers=1, n_heads=4, n_kv_heads=4, vocab_size=64, seq_len=32)
    plan = _plan(capsys, "--model", str(model), "--nodes", "4")
    assert plan["possible_nodes"] == [1, 2, 3, 4]
    assert plan["cpp_root_nodes"] == [1, 2, 4]
    assert "5 computing nodes cannot share this model" in plan["impossible"]
    assert main(["plan", "--model", str(model), "--nodes", "4"]) == 0
    assert "not possible: 5 computing nodes cannot share" in capsys.readouterr().out


def test_without_an_obstacle_nothing_is_said_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    options = plan_options_of("--model", "gqa", "--nodes", "2")
    plan = replace(make_plan(options), obstacle="")
    print_plan(plan, options, Terminal())
    assert "not possible" not in capsys.readouterr().out


def plan_options_of(*arguments: str) -> PlanOptions:
    parser = make_parser()
    return plan_options(parser, parser.parse_args(["plan", *arguments]))


def test_a_name_is_shown_as_it_is_and_never_read_as_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path("[red]tiny[") / "red] [bold].m"  # the directory gives a closing tag its slash
    golden = Path(__file__).parents[1] / "data/golden/models/tiny-q40.m"
    monkeypatch.chdir(tmp_path)
    model.parent.mkdir()
    model.write_bytes(golden.read_bytes())
    assert main(["plan", "--model", str(model), "--nodes", "1"]) == 0
    assert capsys.readouterr().out.startswith("[red]tiny[/red] [bold].m: q40 weights, context ")


def test_one_node_is_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "single.m"
    _f32_model(model, dim=32, hidden_dim=32, n_layers=1, n_heads=1, n_kv_heads=1, vocab_size=64, seq_len=32)
    assert main(["plan", "--model", str(model), "--nodes", "1"]) == 0
    shown = capsys.readouterr().out
    assert ", 1 node, split even" in shown
    assert "possible with equal weights: 1 node (as the C++ root splits: 1)" in shown
    assert main(["plan", "--model", str(model), "--nodes", "2"]) == 2
    assert "nearest possible: 1 node\n" in capsys.readouterr().err
