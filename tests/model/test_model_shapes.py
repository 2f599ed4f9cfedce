"""Shapes of models: one table, one set of names, for whatever plans, measures or makes models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dllama_ops import bench
from dllama_proto.enums import ArchType, FloatType
from dllama_proto.model_file import tensor_entries
from dllama_proto.model_shapes import MODEL_SHAPES, OTHER_NAMES, model_shape
from dllama_worker.model.presets import preset_header
from dllama_worker.root.planning.plan import header_of

#: Numbers that are stored, in 10^9, as the makers give them; tied embeddings are stored twice.
_PARAMETERS = {
    "llama-3.2-1b": (1.24, True),
    "llama-3.2-3b": (3.21, True),
    "llama-3.1-8b": (8.03, False),
    "llama-3.1-70b": (70.6, False),
    "llama-3.1-405b": (405.9, False),
    "qwen3-0.6b": (0.6, True),
    "qwen3-1.7b": (1.72, True),
    "qwen3-4b": (4.02, True),
    "qwen3-8b": (8.19, False),
    "qwen3-14b": (14.77, False),
    "qwen3-32b": (32.76, False),
    "qwen3-30b-a3b": (30.5, False),
}


@pytest.mark.parametrize("name", _PARAMETERS)
def test_a_shape_has_as_many_numbers_as_its_model(name: str) -> None:
    header = preset_header(name, FloatType.F32)
    stored = sum(entry.n * entry.d for entry in tensor_entries(header)) / 1e9
    published, tied = _PARAMETERS[name]
    if tied:
        stored -= header.dim * header.vocab_size / 1e9
    assert stored == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", MODEL_SHAPES)
def test_a_header_has_the_dimensions_of_its_shape(name: str) -> None:
    shape, header = model_shape(name), preset_header(name, FloatType.Q40)
    for dimension in (
        "arch", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "seq_len", "q_dim",
        "kv_dim", "ff_dim", "n_experts", "n_active_experts", "rope_theta",
    ):  # fmt: skip
        assert getattr(shape, dimension) == getattr(header, dimension), dimension
    assert header.norm_epsilon == pytest.approx(1e-5 if shape.arch is ArchType.LLAMA else 1e-6)
    if shape.rope_scaling is not None:
        assert header.rope_scaling_factor == shape.rope_scaling.factor


def test_the_new_shapes_are_the_published_ones() -> None:
    shape = model_shape("llama-3.2-3b")
    assert (shape.dim, shape.ff_dim, shape.n_layers, shape.head_dim) == (3072, 8192, 28, 128)
    assert (shape.n_heads, shape.n_kv_heads, shape.vocab_size, shape.seq_len) == (24, 8, 128_256, 131_072)
    shape = model_shape("qwen3-32b")
    assert (shape.dim, shape.ff_dim, shape.n_layers, shape.q_dim) == (5120, 25_600, 64, 8192)
    assert (shape.n_kv_heads, shape.vocab_size, shape.seq_len) == (8, 151_936, 40_960)


def test_plan_and_bench_take_the_same_names() -> None:
    assert bench.MODELS is MODEL_SHAPES
    for name in (*MODEL_SHAPES, *OTHER_NAMES):
        assert header_of(name, "q40").dim == bench.model_shape(name).dim


def test_names_of_before_still_work() -> None:
    assert model_shape("llama-3-8b") is model_shape("llama-3.1-8b")
    assert set(OTHER_NAMES.values()) <= set(MODEL_SHAPES)
    assert not set(OTHER_NAMES) & set(MODEL_SHAPES)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"expected one of tiny, gqa, .*, got 'llama-9'"):
        model_shape("llama-9")


@pytest.mark.slow
def test_shapes_load_no_parser() -> None:
    program = (
        "import dllama_proto.model_shapes, sys; print('construct' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", "False"]
