"""The shapes of models people run, by name, and of small ones of every kind: what is wide, how many layers.

A shape is all of a model but its numbers. ``plan`` and synthetic models make headers of them, ``bench`` measures
kernels on their widths; so the table is here, below both, and imports enums only. Dimensions are those that the
makers publish with each model; the vocabulary is the number of rows that are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from dllama_proto.enums import ArchType

__all__ = ["MODEL_SHAPES", "ModelShape", "OTHER_NAMES", "RopeScaling", "model_shape"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How Llama 3.1 and later stretch rotary angles to a context longer than they were trained with at first."""

    factor: int
    orig_max_seq_len: int
    low_freq_factor: int = 1
    high_freq_factor: int = 4


@dataclass(frozen=True, slots=True)
class ModelShape:
    """One shape. ``head_dim`` 0 is dim / n_heads; without experts all three of their fields are 0.

    ``hidden_dim`` is of the feed-forward block that every row goes through; ``moe_hidden_dim`` of one expert.
    """

    arch: ArchType
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int
    head_dim: int = 0
    rope_theta: int = 10_000
    rope_scaling: RopeScaling | None = None
    n_experts: int = 0
    n_active_experts: int = 0
    moe_hidden_dim: int = 0

    def __post_init__(self) -> None:
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.dim // self.n_heads)

    @property
    def q_dim(self) -> int:
        """Values of all query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Values of all key (or value) heads."""
        return self.n_kv_heads * self.head_dim

    @property
    def ff_dim(self) -> int:
        """Inner width of the feed-forward block; with experts, of one expert."""
        return self.moe_hidden_dim if self.n_experts else self.hidden_dim


_SMALL = ModelShape(
    ArchType.LLAMA,
    dim=256,
    hidden_dim=512,
    n_layers=3,
    n_heads=8,
    n_kv_heads=4,
    vocab_size=512,
    seq_len=256,
)
_SMALL_QWEN3 = replace(_SMALL, arch=ArchType.QWEN3, head_dim=64, rope_theta=1_000_000)


def _llama3(
    dim: int, hidden_dim: int, n_layers: int, n_heads: int, *, factor: int = 8, seq_len: int = 131_072
) -> ModelShape:
    """Llama 3.1 and 3.2: all have eight key-value heads and one vocabulary."""
    return ModelShape(
        ArchType.LLAMA,
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads=8,
        vocab_size=128_256,
        seq_len=seq_len,
        rope_theta=500_000,
        rope_scaling=RopeScaling(factor, 8192),
    )


def _qwen3(dim: int, hidden_dim: int, n_layers: int, n_heads: int, *, seq_len: int = 40_960) -> ModelShape:
    """Qwen3 without experts: all have eight key-value heads, heads of 128 and one vocabulary."""
    return ModelShape(
        ArchType.QWEN3,
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads=8,
        vocab_size=151_936,
        seq_len=seq_len,
        head_dim=128,
        rope_theta=1_000_000,
    )


#: Small ones of every kind, for tests and for trying things out, then those of models people run. The two smallest
#: of these keep the short context that measurements were made with.
MODEL_SHAPES: Mapping[str, ModelShape] = MappingProxyType(
    {
        "tiny": replace(_SMALL, dim=128, hidden_dim=256, n_layers=2, n_heads=4, head_dim=0),
        "gqa": _SMALL,
        "mha": replace(_SMALL, n_kv_heads=8),
        "llama31": replace(_SMALL, rope_theta=500_000, rope_scaling=RopeScaling(8, 64)),
        "qwen3": _SMALL_QWEN3,
        "qwen3_moe": replace(
            _SMALL_QWEN3,
            arch=ArchType.QWEN3_MOE,
            n_layers=2,
            n_experts=8,
            n_active_experts=2,
            moe_hidden_dim=256,
        ),
        "llama-100m": ModelShape(
            ArchType.LLAMA,
            dim=768,
            hidden_dim=2048,
            n_layers=12,
            n_heads=12,
            n_kv_heads=4,
            vocab_size=32_000,
            seq_len=2048,
        ),
        "llama-3.2-1b": _llama3(2048, 8192, 16, 32, factor=32, seq_len=4096),
        "llama-3.2-3b": _llama3(3072, 8192, 28, 24, factor=32),
        "llama-3.1-8b": _llama3(4096, 14_336, 32, 32),
        "llama-3.1-70b": _llama3(8192, 28_672, 80, 64),
        "llama-3.1-405b": _llama3(16_384, 53_248, 126, 128),
        "qwen3-0.6b": _qwen3(1024, 3072, 28, 16, seq_len=4096),
        "qwen3-1.7b": _qwen3(2048, 6144, 28, 16),
        "qwen3-4b": _qwen3(2560, 9728, 36, 32),
        "qwen3-8b": _qwen3(4096, 12_288, 36, 32),
        "qwen3-14b": _qwen3(5120, 17_408, 40, 40),
        "qwen3-32b": _qwen3(5120, 25_600, 64, 64),
        "qwen3-30b-a3b": ModelShape(
            ArchType.QWEN3_MOE,
            dim=2048,
            hidden_dim=6144,
            n_layers=48,
            n_heads=32,
            n_kv_heads=4,
            vocab_size=151_936,
            seq_len=40_960,
            head_dim=128,
            rope_theta=1_000_000,
            n_experts=128,
            n_active_experts=8,
            moe_hidden_dim=768,
        ),
    }
)

#: Names that command lines take as well: Llama 3 has the shape of 3.1.
OTHER_NAMES: Mapping[str, str] = MappingProxyType({"llama-3-8b": "llama-3.1-8b"})


def model_shape(name: str) -> ModelShape:
    """Return the shape of this name. Raises ValueError telling the names there are."""
    shape = MODEL_SHAPES.get(OTHER_NAMES.get(name, name))
    if shape is None:
        raise ValueError(f"expected one of {', '.join(MODEL_SHAPES)}, got {name!r}")
    return shape
