"""A model's header from the name of its shape and the type of its weights."""

from __future__ import annotations

from collections.abc import Iterator

from dllama_proto.enums import ArchType, FloatType, RopeType
from dllama_proto.model_header import HiddenAct, ModelHeader, ModelKey
from dllama_proto.model_shapes import ModelShape, model_shape

__all__ = ["preset_header"]

#: Where angles are not said to be other, this is what they are made with.
_DEFAULT_THETA = 10_000

#: The exponent of Qwen3's norm_epsilon, 1e-6; the default is 1e-5.
_QWEN3_EPSILON = 6


def preset_header(preset: str, weights: FloatType) -> ModelHeader:
    """Return the header of a shape's model, as a file of it has. Raises ValueError for an unknown name."""
    return ModelHeader.from_pairs(list(_pairs(model_shape(preset), weights)))


def _pairs(shape: ModelShape, weights: FloatType) -> Iterator[tuple[ModelKey, int]]:
    """Yield keys and values in the order of the converter; what has its default is left out."""
    yield ModelKey.VERSION, 0
    yield ModelKey.ARCH, shape.arch
    yield ModelKey.HIDDEN_ACT, HiddenAct.SILU
    yield ModelKey.WEIGHT_FLOAT_TYPE, weights
    yield ModelKey.DIM, shape.dim
    yield ModelKey.HIDDEN_DIM, shape.hidden_dim
    yield ModelKey.N_LAYERS, shape.n_layers
    yield ModelKey.N_HEADS, shape.n_heads
    yield ModelKey.N_KV_HEADS, shape.n_kv_heads
    yield ModelKey.VOCAB_SIZE, shape.vocab_size
    yield ModelKey.SEQ_LEN, shape.seq_len
    if shape.arch is not ArchType.LLAMA:
        yield ModelKey.HEAD_DIM, shape.head_dim
        yield ModelKey.NORM_EPSILON, _QWEN3_EPSILON
    if shape.rope_scaling is not None:
        yield ModelKey.ROPE_TYPE, RopeType.LLAMA3_1
    if shape.rope_theta != _DEFAULT_THETA:
        yield ModelKey.ROPE_THETA, shape.rope_theta
    if (scaling := shape.rope_scaling) is not None:
        yield ModelKey.ROPE_SCALING_FACTOR, scaling.factor
        yield ModelKey.ROPE_SCALING_LOW_FREQ_FACTOR, scaling.low_freq_factor
        yield ModelKey.ROPE_SCALING_HIGH_FREQ_FACTOR, scaling.high_freq_factor
        yield ModelKey.ROPE_SCALING_ORIG_MAX_SEQ_LEN, scaling.orig_max_seq_len
    if shape.n_experts:
        yield ModelKey.N_EXPERTS, shape.n_experts
        yield ModelKey.N_ACTIVE_EXPERTS, shape.n_active_experts
        yield ModelKey.MOE_HIDDEN_DIM, shape.moe_hidden_dim
