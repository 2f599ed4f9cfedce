"""Whole segments of a model in one call: the same as op by op, with kernels of other plugins in the middle."""

from __future__ import annotations

import threading
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dllama_ops import (
    BaseKernel,
    KernelDataError,
    OpContext,
    ProfiledSegment,
    RegisterKernel,
    build_kernel_table,
    compile_segment,
    hookimpl,
    make_plugin_manager,
    native,
)
from dllama_ops.scope import ForwardStopped
from dllama_ops.segments import SequentialSegment
from dllama_proto.enums import FloatType, OpCode, OpQuantType
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.node.binding import bind
from dllama_worker.node.memory import NodeMemory
from dllama_worker.node.node import Node
from dllama_worker.report import Report
from dllama_worker.root.layout import build_layout
from dllama_worker.sharding.partition import even_partition
from dllama_worker.sharding.pieces import node_weight_pieces
from tests.fuzz.targets import parse
from tests.helpers.many_ops import MAX_OPS, activations, said

if native.unavailable is not None:
    pytest.skip(f"no native kernels: {native.unavailable}", allow_module_level=True)

from dllama_ops.native import _core
from dllama_ops.native.segment import NativeSegment

MODELS = Path(__file__).parents[1] / "data" / "golden" / "models"
Logits = npt.NDArray[np.float32]


@cache
def _model(name: str) -> ModelSource:
    return open_model(MODELS / name)


class _Node:
    """A root without workers, whose segments are run by whoever is preferred."""

    def __init__(
        self, model: str, kernels: str, n_threads: int, manager: Any = None, whole: bool = True
    ) -> None:
        file = _model(model)
        partition = even_partition(file.header, 1)
        sync_type = FloatType.F32 if "f32" in model else FloatType.Q80
        layout = build_layout(file.header, partition, sync_type)
        self.memory = NodeMemory(layout.net, layout.nodes[0])
        table = build_kernel_table(manager or make_plugin_manager(), prefer=kernels)
        node = bind(layout.net, layout.nodes[0], self.memory, table, n_threads)
        for piece in node_weight_pieces(file.header, partition, 0):
            header = piece.header
            node.weighted[header.name, header.op_index].kernel.load_weight(header.offset, piece.data(file))
        for op in node.weighted.values():
            op.kernel.finish_weight()
        self.segments = [
            compile_segment(table.compilers, ops, n_threads).segment if whole else SequentialSegment(ops)
            for ops in node.segments
            if ops
        ]
        self.ops = [ops for ops in node.segments if ops]
        self._pipes = {
            pipe.name: tensor.data for pipe, tensor in zip(layout.net.pipes, self.memory.pipes, strict=True)
        }

    def forward(self, tokens: list[int], position: int) -> Logits:
        n = len(tokens)
        self._pipes["POS"][0, :n, 0] = np.arange(position, position + n)
        self._pipes["TOK"][0, :n, 0] = tokens
        for segment in self.segments:
            segment.forward(n)
        logits: Logits = self._pipes["LG"][0, :n].copy()
        return logits


PROMPT = [(7 * i + 3) % 500 for i in range(32)]


def _logits(node: _Node) -> Logits:
    return np.concatenate([node.forward(PROMPT, 0), node.forward(PROMPT[:5], 32), node.forward([9], 37)])


@cache
def _expected(model: str) -> Logits:
    return _logits(_Node(model, "numpy", 1))


@pytest.mark.parametrize("variant", _core.kernel_sets())
@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("model", ["tiny-q40.m", "tiny-f32.m"])
def test_a_model_agrees_with_the_reference(model: str, variant: str, n_threads: int) -> None:
    logits = _logits(_Node(model, f"native:{variant}", n_threads))
    expected = _expected(model)
    # Quantised activations may fall on the other side of a rounding; without them there is only rounding.
    tolerance = 0.02 if "q40" in model else 1e-4
    assert np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_whole_segment_equals_its_ops_one_by_one_bit_for_bit(n_threads: int) -> None:
    whole = _Node("tiny-q40.m", "native", n_threads)
    assert all(isinstance(segment, NativeSegment) for segment in whole.segments)
    one_by_one = _Node("tiny-q40.m", "native", n_threads, whole=False)
    assert _logits(whole).tobytes() == _logits(one_by_one).tobytes()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_profiled_segment_computes_the_same_and_tells_the_seconds_of_every_op(n_threads: int) -> None:
    node = _Node("tiny-q40.m", "native", n_threads)
    plain, profiled = _logits(node), _Node("tiny-q40.m", "native", n_threads)
    taken: list[list[float]] = []
    for segment in profiled.segments:
        assert isinstance(segment, ProfiledSegment)
        segment.forward = partial(_profile, segment, taken)  # type: ignore[method-assign]
    before = perf_counter()
    assert _logits(profiled).tobytes() == plain.tobytes()
    assert 0 < sum(map(sum, taken)) <= perf_counter() - before
    assert [len(seconds) for seconds in taken] == 3 * [len(ops) for ops in profiled.ops]
    assert all(second > 0 for seconds in taken for second in seconds)


def _profile(segment: ProfiledSegment, taken: list[list[float]], batch_size: int) -> None:
    taken.append(list(segment.profile(batch_size)))


class _PythonSilu(BaseKernel):
    """Somebody else's kernel."""

    calls = 0

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)

    def forward(self, batch_size: int) -> None:
        type(self).calls += 1
        rows = self.context.output.data[:, :batch_size]
        rows[...] = rows / (1 + np.exp(-rows))


class _Plugin:
    @hookimpl
    def dllama_register_kernels(self, register: RegisterKernel) -> None:
        register(OpCode.SILU, OpQuantType.F32_F32_F32, _PythonSilu)


def test_a_kernel_of_another_plugin_is_called_in_its_place() -> None:
    manager = make_plugin_manager()
    manager.add("other", _Plugin)
    before = _PythonSilu.calls
    node = _Node("tiny-q40.m", "", 2, manager)
    assert sum(isinstance(segment, NativeSegment) for segment in node.segments) == len(node.segments)
    logits = _logits(node)
    assert _PythonSilu.calls - before == 3 * _model("tiny-q40.m").header.n_layers
    expected = _expected("tiny-q40.m")
    assert np.abs(logits - expected).max() <= 0.02 * np.abs(expected).max()


def test_segments_without_native_kernels_are_left_to_others() -> None:
    assert not any(
        isinstance(segment, NativeSegment) for segment in _Node("tiny-q40.m", "numpy", 1).segments
    )


@pytest.mark.parametrize(("token", "position"), [(512, 0), (-1, 0), (0, 1 << 20)])
def test_bad_numbers_are_refused_and_the_node_lives_on(token: int, position: int) -> None:
    node = _Node("tiny-q40.m", "native", 2)
    good = node.forward([5], 0)
    with pytest.raises(KernelDataError, match=r"expected (tokens|positions) in"):
        node.forward([token], position)
    assert node.forward([5], 0).tobytes() == good.tobytes()


def test_a_segment_stops_between_two_ops_while_it_runs() -> None:
    """A segment of a minute, of one plan, ends soon after somebody asks for it."""
    agreed = parse(said(activations(MAX_OPS // 4, width=1 << 20)))
    assert agreed is not None
    table = build_kernel_table(make_plugin_manager(), prefer="native")
    node = Node(agreed.net, agreed.node, {}, table, 2, lambda *_: NoSyncs())
    node.ready(Report())
    stopping = threading.Timer(0.2, node.stop)
    stopping.start()
    started = perf_counter()
    with pytest.raises(ForwardStopped):
        node.forward(0, 1)
    assert perf_counter() - started < 5
    for _ in range(2):
        with pytest.raises(ForwardStopped):
            node.profile(0, 1)


class NoSyncs:
    def sync(self, segment_index: int, batch_size: int) -> None:
        """A node without others."""
