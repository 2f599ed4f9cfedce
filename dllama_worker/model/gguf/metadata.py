"""What a GGUF file's metadata says of its model: the keys of all architectures as one description.

Keys are those of llama.cpp's ``gguf-py/gguf/constants.py``; the map was proven with transformers and the C++
program's own converter (a model through GGUF and this map is the same file to the last byte).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dllama_proto.enums import ArchType
from dllama_worker.errors import UsageError
from dllama_worker.model.description import Llama3Scaling, ModelDescription, granite_scales
from dllama_worker.model.families import GGUF_FAMILIES, ModelFamily
from dllama_worker.model.gguf.shards import GgufModel

__all__ = ["describe"]

_DEFAULT_THETA = 10_000.0
_MAX = (1 << 31) - 1

#: Of Llama 3.1's scaling a file has only the factors of all frequencies; these are what they were made with.
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
_TOLERANCE = 1e-5


def describe(model: GgufModel, max_seq_len: int = 0) -> ModelDescription:
    """Return the description of a file's model, for a context of ``max_seq_len`` or the file's own.

    Raises UsageError for an architecture that no node computes, and for what the ops of the nodes can't do.
    """
    name = model.metadata.get("general.architecture")
    family = GGUF_FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise UsageError(
            f"{model.path}: is a model of architecture {str(name)[:40]!r}: this program knows "
            f"{', '.join(GGUF_FAMILIES)}"
        )
    values = _ArchitectureValues(model.path, model.metadata, str(name))
    n_heads = values.count("attention.head_count")
    dim = values.count("embedding_length")
    head_dim = values.optional("attention.key_length")
    if head_dim is None and family.arch is ArchType.LLAMA:
        head_dim = values.optional("rope.dimension_count")
    if head_dim is None:
        head_dim = dim // n_heads
    value_length = values.optional("attention.value_length")
    if value_length not in (None, head_dim):
        raise values.refusal("attention.value_length", f"{head_dim}, as wide as keys", value_length)
    rotated = values.optional("rope.dimension_count")
    if rotated not in (None, head_dim):
        raise values.refusal("rope.dimension_count", f"{head_dim}, the whole head", rotated)
    n_experts = values.optional("expert_count") or 0
    if n_experts and not family.is_moe:
        raise values.refusal("expert_count", "0, as experts go with qwen3moe only", n_experts)
    seq_len = values.count("context_length")
    _check_window(values, min(max_seq_len or seq_len, seq_len))
    theta = values.real("rope.freq_base", _DEFAULT_THETA)
    return ModelDescription(
        arch=family.arch,
        dim=dim,
        hidden_dim=values.optional("feed_forward_length") or 0,
        n_layers=values.count("block_count"),
        n_heads=n_heads,
        n_kv_heads=values.optional("attention.head_count_kv") or n_heads,
        vocab_size=_vocab_size(model),
        seq_len=seq_len,
        n_experts=n_experts,
        n_active_experts=values.count("expert_used_count") if family.is_moe else 0,
        moe_hidden_dim=values.count("expert_feed_forward_length") if family.is_moe else None,
        rope_theta=theta,
        rope_scaling=_rope_scaling(model, values, head_dim, theta),
        head_dim=head_dim,
        norm_epsilon=values.real("attention.layer_norm_rms_epsilon", 1e-5),
        rope_type=family.rope_type,
        has_qkv_bias=family.has_qkv_bias,
        unrotated_layers=_unrotated_layers(values, family),
        scales=_scales(values, head_dim) if family.is_scaled else MappingProxyType({}),
    )


def _unrotated_layers(values: _ArchitectureValues, family: ModelFamily) -> tuple[int, ...]:
    """Return every layer that ends a step (llama.cpp's ``n_no_rope_layer_step``)."""
    step = family.unrotated_step
    return tuple(range(step - 1, values.count("block_count"), step)) if step else ()


def _scales(values: _ArchitectureValues, head_dim: int) -> Mapping[str, float]:
    return granite_scales(
        values.real("embedding_scale", 1.0),
        values.real("attention.scale", 1 / head_dim**0.5),
        values.real("residual_scale", 1.0),
        values.real("logit_scale", 1.0),
        head_dim,
    )


def _vocab_size(model: GgufModel) -> int:
    found = model.tensors.get("token_embd.weight")
    if found is None or len(found[1].dims) != 2:
        raise UsageError(f"{model.path}: has no embedding, tensor 'token_embd.weight' of two dimensions")
    return found[1].dims[1]


def _check_window(values: _ArchitectureValues, seq_len: int) -> None:
    window = values.optional("attention.sliding_window")
    if window and window < seq_len:
        raise UsageError(
            f"{values.path}: looks back {window} tokens only (sliding window), which no node does: shorter "
            f"contexts are the same without, start with --max-seq-len {window}"
        )


def _rope_scaling(
    model: GgufModel, values: _ArchitectureValues, head_dim: int, theta: float
) -> Llama3Scaling | None:
    """Return Llama 3.1's scaling where the file has its factors; refuse what scales otherwise."""
    kind = values.text("rope.scaling.type", "none")
    factor = values.real("rope.scaling.factor", 1.0)
    if kind not in ("none", "") and factor != 1.0:
        raise values.refusal("rope.scaling.type", "none, or Llama 3.1's, as nodes rotate so only", kind)
    found = model.tensors.get("rope_freqs.weight")
    if found is None:
        return None
    file, tensor = found
    if tensor.dims != (head_dim // 2,) or tensor.ggml_type.name != "F32":
        raise UsageError(
            f"{values.path}: tensor 'rope_freqs.weight' has dimensions {tensor.dims} of {tensor.ggml_type.name}, "
            f"expected ({head_dim // 2},) of F32"
        )
    stored = file.data[tensor.offset : tensor.offset + tensor.n_bytes].view("<f4")
    scaling = Llama3Scaling(float(stored.max()), _LOW, _HIGH, _ORIGINAL)
    if not np.allclose(stored, _factors(scaling, head_dim, theta), rtol=_TOLERANCE):
        raise UsageError(
            f"{values.path}: scales its rotations (tensor 'rope_freqs.weight') otherwise than Llama 3.1, which is "
            "all that nodes can do"
        )
    return scaling


def _factors(scaling: Llama3Scaling, head_dim: int, theta: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return what each frequency is divided by (transformers' ``_compute_llama3_parameters``)."""
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = np.clip((scaling.orig_max_seq_len / wavelengths - low) / (high - low), 0, 1)
    factors: np.ndarray[Any, np.dtype[np.float64]] = 1 / ((1 - smooth) / scaling.factor + smooth)
    return factors


class _ArchitectureValues:
    """Typed values of an architecture's keys."""

    def __init__(self, path: Path, metadata: Mapping[str, Any], arch: str) -> None:
        self.path = path
        self._metadata = metadata
        self._arch = arch

    def refusal(self, key: str, expected: str, got: object) -> UsageError:
        """Return the error that names a key, what nodes can do, and what the file has."""
        return UsageError(f"{self.path}: {self._arch}.{key}: expected {expected}, got {str(got)[:60]}")

    def optional(self, key: str) -> int | None:
        """Return a whole number, or None; a list counts where all its items are equal."""
        value = self._metadata.get(f"{self._arch}.{key}")
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX:
            raise self.refusal(key, f"a number from 0 to {_MAX}, the same for all layers", value)
        return value

    def count(self, key: str) -> int:
        """Return a whole number of at least 1."""
        value = self.optional(key)
        if not value:
            raise self.refusal(key, "a number of at least 1", "none" if value is None else 0)
        return value

    def real(self, key: str, default: float) -> float:
        """Return a positive number."""
        value = self._metadata.get(f"{self._arch}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _MAX:
            raise self.refusal(key, "a positive number", value)
        return float(value)

    def text(self, key: str, default: str) -> str:
        """Return a word."""
        value = self._metadata.get(f"{self._arch}.{key}", default)
        if not isinstance(value, str):
            raise self.refusal(key, "a word", value)
        return value
