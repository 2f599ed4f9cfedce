"""The widths of models that kernels are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["MODELS", "ModelShape"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Values of a row where a model's ops see them; ``n_experts`` is 0 without experts."""

    dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    n_experts: int = 0
    n_active_experts: int = 0

    @property
    def q_dim(self) -> int:
        """Values of all query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Values of all key-value heads."""
        return self.n_kv_heads * self.head_dim


#: Shapes by the names of their models; ``tiny`` is for trying things out.
MODELS: Mapping[str, ModelShape] = MappingProxyType(
    {
        "tiny": ModelShape(128, 256, 4, 2, 32, 512),
        "llama-3.2-1b": ModelShape(2048, 8192, 32, 8, 64, 128_256),
        "llama-3-8b": ModelShape(4096, 14_336, 32, 8, 128, 128_256),
        "qwen3-0.6b": ModelShape(1024, 3072, 16, 8, 128, 151_936),
        "qwen3-30b-a3b": ModelShape(2048, 768, 32, 4, 128, 151_936, 128, 8),
    }
)
