"""Shapes of models by name: small ones of every kind for tests, and those of models people run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dllama_proto.enums import FloatType, RopeType
from dllama_proto.model_header import ArchType, HiddenAct, ModelHeader, ModelKey

__all__ = ["PRESETS", "preset_header"]

_SMALL = {
    ModelKey.DIM: 256,
    ModelKey.HIDDEN_DIM: 512,
    ModelKey.N_LAYERS: 3,
    ModelKey.N_HEADS: 8,
    ModelKey.N_KV_HEADS: 4,
    ModelKey.VOCAB_SIZE: 512,
    ModelKey.SEQ_LEN: 256,
}
_SMALL_QWEN3 = {**_SMALL, ModelKey.HEAD_DIM: 64, ModelKey.NORM_EPSILON: 6, ModelKey.ROPE_THETA: 1_000_000}


def _llama31_rope(factor: int, orig_max_seq_len: int) -> dict[ModelKey, int]:
    return {
        ModelKey.ROPE_TYPE: RopeType.LLAMA3_1,
        ModelKey.ROPE_THETA: 500_000,
        ModelKey.ROPE_SCALING_FACTOR: factor,
        ModelKey.ROPE_SCALING_LOW_FREQ_FACTOR: 1,
        ModelKey.ROPE_SCALING_HIGH_FREQ_FACTOR: 4,
        ModelKey.ROPE_SCALING_ORIG_MAX_SEQ_LEN: orig_max_seq_len,
    }


#: Family and header values by name: small ones of every kind, then the shapes of models people run.
PRESETS: Mapping[str, tuple[ArchType, Mapping[ModelKey, int]]] = MappingProxyType(
    {
        "tiny": (
            ArchType.LLAMA,
            {**_SMALL, ModelKey.DIM: 128, ModelKey.HIDDEN_DIM: 256}
            | {ModelKey.N_LAYERS: 2, ModelKey.N_HEADS: 4},
        ),
        "gqa": (ArchType.LLAMA, _SMALL),
        "mha": (ArchType.LLAMA, {**_SMALL, ModelKey.N_KV_HEADS: 8}),
        "llama31": (ArchType.LLAMA, _SMALL | _llama31_rope(8, 64)),
        "qwen3": (ArchType.QWEN3, _SMALL_QWEN3),
        "qwen3_moe": (
            ArchType.QWEN3_MOE,
            {**_SMALL_QWEN3, ModelKey.N_LAYERS: 2}
            | {ModelKey.N_EXPERTS: 8, ModelKey.N_ACTIVE_EXPERTS: 2, ModelKey.MOE_HIDDEN_DIM: 256},
        ),
        "llama-100m": (
            ArchType.LLAMA,
            {
                ModelKey.DIM: 768,
                ModelKey.HIDDEN_DIM: 2048,
                ModelKey.N_LAYERS: 12,
                ModelKey.N_HEADS: 12,
                ModelKey.N_KV_HEADS: 4,
                ModelKey.VOCAB_SIZE: 32_000,
                ModelKey.SEQ_LEN: 2048,
            },
        ),
        "llama-3.2-1b": (
            ArchType.LLAMA,
            {
                ModelKey.DIM: 2048,
                ModelKey.HIDDEN_DIM: 8192,
                ModelKey.N_LAYERS: 16,
                ModelKey.N_HEADS: 32,
                ModelKey.N_KV_HEADS: 8,
                ModelKey.VOCAB_SIZE: 128_256,
                ModelKey.SEQ_LEN: 4096,
            }
            | _llama31_rope(32, 8192),
        ),
        "llama-3.1-8b": (
            ArchType.LLAMA,
            {
                ModelKey.DIM: 4096,
                ModelKey.HIDDEN_DIM: 14_336,
                ModelKey.N_LAYERS: 32,
                ModelKey.N_HEADS: 32,
                ModelKey.N_KV_HEADS: 8,
                ModelKey.VOCAB_SIZE: 128_256,
                ModelKey.SEQ_LEN: 131_072,
            }
            | _llama31_rope(8, 8192),
        ),
        "llama-3.1-70b": (
            ArchType.LLAMA,
            {
                ModelKey.DIM: 8192,
                ModelKey.HIDDEN_DIM: 28_672,
                ModelKey.N_LAYERS: 80,
                ModelKey.N_HEADS: 64,
                ModelKey.N_KV_HEADS: 8,
                ModelKey.VOCAB_SIZE: 128_256,
                ModelKey.SEQ_LEN: 131_072,
            }
            | _llama31_rope(8, 8192),
        ),
        "llama-3.1-405b": (
            ArchType.LLAMA,
            {
                ModelKey.DIM: 16_384,
                ModelKey.HIDDEN_DIM: 53_248,
                ModelKey.N_LAYERS: 126,
                ModelKey.N_HEADS: 128,
                ModelKey.N_KV_HEADS: 8,
                ModelKey.VOCAB_SIZE: 128_256,
                ModelKey.SEQ_LEN: 131_072,
            }
            | _llama31_rope(8, 8192),
        ),
        "qwen3-0.6b": (
            ArchType.QWEN3,
            {
                ModelKey.DIM: 1024,
                ModelKey.HIDDEN_DIM: 3072,
                ModelKey.N_LAYERS: 28,
                ModelKey.N_HEADS: 16,
                ModelKey.N_KV_HEADS: 8,
                ModelKey.VOCAB_SIZE: 151_936,
                ModelKey.SEQ_LEN: 4096,
                ModelKey.HEAD_DIM: 128,
                ModelKey.NORM_EPSILON: 6,
                ModelKey.ROPE_THETA: 1_000_000,
            },
        ),
        "qwen3-30b-a3b": (
            ArchType.QWEN3_MOE,
            {
                ModelKey.DIM: 2048,
                ModelKey.HIDDEN_DIM: 6144,
                ModelKey.N_LAYERS: 48,
                ModelKey.N_HEADS: 32,
                ModelKey.N_KV_HEADS: 4,
                ModelKey.VOCAB_SIZE: 151_936,
                ModelKey.SEQ_LEN: 40_960,
                ModelKey.HEAD_DIM: 128,
                ModelKey.NORM_EPSILON: 6,
                ModelKey.ROPE_THETA: 1_000_000,
                ModelKey.N_EXPERTS: 128,
                ModelKey.N_ACTIVE_EXPERTS: 8,
                ModelKey.MOE_HIDDEN_DIM: 768,
            },
        ),
    }
)


def preset_header(preset: str, weights: FloatType) -> ModelHeader:
    """Return the header of a preset's model. Raises KeyError for an unknown name."""
    arch, values = PRESETS[preset]
    return ModelHeader.from_pairs(
        [
            (ModelKey.VERSION, 0),
            (ModelKey.ARCH, arch),
            (ModelKey.HIDDEN_ACT, HiddenAct.SILU),
            (ModelKey.WEIGHT_FLOAT_TYPE, weights),
            *values.items(),
        ]
    )
