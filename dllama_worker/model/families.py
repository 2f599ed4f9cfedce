"""Families of models: what each computes otherwise than Llama, in terms of what every worker's ops can do.

Sources: transformers' ``modeling_*.py``. A new family whose ops are there is one entry here, and the names of its
keys where formats name them otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dllama_proto.enums import ArchType, RopeType

__all__ = ["GGUF_FAMILIES", "HUGGING_FACE_FAMILIES", "ModelFamily"]


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What makes a family.

    ``arch`` is how the layers are laid out. ``rope_type`` says which halves of a head are rotated with each other:
    neighbours (LLAMA) or those half a head apart (FALCON). ``has_qkv_bias``: queries, keys and values have biases.
    ``is_fused``: they are stored as one matrix, as are gate and up. ``unrotated_step``: every so many layers one
    is not rotated. ``is_scaled``: embedding, attention, residuals and logits have factors of their own.
    """

    arch: ArchType = ArchType.LLAMA
    rope_type: RopeType = RopeType.LLAMA
    has_qkv_bias: bool = False
    is_fused: bool = False
    unrotated_step: int = 0
    is_scaled: bool = False

    @property
    def is_moe(self) -> bool:
        """Whether the feed-forward block consists of experts."""
        return self.arch is ArchType.QWEN3_MOE


_LLAMA = ModelFamily()
_QWEN2 = ModelFamily(rope_type=RopeType.FALCON, has_qkv_bias=True)
_QWEN3 = ModelFamily(ArchType.QWEN3, RopeType.FALCON)
_QWEN3_MOE = ModelFamily(ArchType.QWEN3_MOE, RopeType.FALCON)
_SMOLLM3 = ModelFamily(unrotated_step=4)
_PHI3 = ModelFamily(rope_type=RopeType.FALCON, is_fused=True)
_GRANITE = ModelFamily(is_scaled=True)

#: By ``general.architecture``.
GGUF_FAMILIES: Mapping[str, ModelFamily] = MappingProxyType(
    {
        "llama": _LLAMA,
        "qwen2": _QWEN2,
        "qwen3": _QWEN3,
        "qwen3moe": _QWEN3_MOE,
        "smollm3": _SMOLLM3,
        "phi3": _PHI3,
        "granite": _GRANITE,
    }
)

#: By ``model_type``.
HUGGING_FACE_FAMILIES: Mapping[str, ModelFamily] = MappingProxyType(
    {
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _QWEN2,
        "qwen3": _QWEN3,
        "qwen3_moe": _QWEN3_MOE,
        "smollm3": _SMOLLM3,
        "phi3": _PHI3,
        "granite": _GRANITE,
    }
)
