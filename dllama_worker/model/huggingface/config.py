"""What a folder's ``config.json`` says of its model, as one description.

Keys are those of transformers' configuration classes, of version 4 (``rope_theta``, ``rope_scaling``) and of
version 5 (``rope_parameters``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dllama_proto.model_header import HiddenAct
from dllama_worker.errors import UsageError
from dllama_worker.model.description import Llama3Scaling, ModelDescription, granite_scales
from dllama_worker.model.families import HUGGING_FACE_FAMILIES

__all__ = ["describe", "read_config"]

_ACTIVATIONS = MappingProxyType({"silu": HiddenAct.SILU, "gelu": HiddenAct.GELU})
_MAX = (1 << 31) - 1
_MAX_FILE = 16 << 20


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UsageError naming the file and what is wrong with it, OSError."""
    if path.stat().st_size > _MAX_FILE:
        raise UsageError(f"{path}: has {path.stat().st_size} bytes, expected a few thousand")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


def describe(path: Path, config: dict[str, Any], max_seq_len: int = 0) -> ModelDescription:
    """Return the description of a model, for a context of ``max_seq_len`` or the model's own.

    Raises UsageError for an architecture that no node computes, and for what the ops of the nodes can't do.
    """
    values = _ConfigValues(path, config)
    name = values.text("model_type")
    family = HUGGING_FACE_FAMILIES.get(name)
    if family is None:
        raise UsageError(
            f"{path}: is a model of type {name[:40]!r}: this program knows {', '.join(HUGGING_FACE_FAMILIES)}"
        )
    if config.get("quantization_config") is not None:
        raise UsageError(
            f"{path}: its weights are quantised (quantization_config): take the model's original, or a GGUF"
        )
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise values.refusal(key, "false, as matrices have no bias here", config[key])
    is_moe = family.is_moe
    if is_moe and (
        config.get("mlp_only_layers") or values.optional("decoder_sparse_step") not in (None, 1)
    ):
        raise UsageError(
            f"{path}: has layers without experts among others (mlp_only_layers, decoder_sparse_step)"
        )
    if is_moe and not config.get("norm_topk_prob", False):
        raise UsageError(
            f"{path}: norm_topk_prob: expected true, as nodes let the weights of chosen experts add up to 1"
        )
    n_heads, dim = values.count("num_attention_heads"), values.count("hidden_size")
    seq_len = values.count("max_position_embeddings")
    _check_window(values, config, min(max_seq_len or seq_len, seq_len))
    activation = values.text("hidden_act")
    if activation not in _ACTIVATIONS:
        raise values.refusal("hidden_act", " or ".join(_ACTIVATIONS), activation)
    rope = _rope_parameters(values, config)
    head_dim = values.optional("head_dim")
    return ModelDescription(
        arch=family.arch,
        dim=dim,
        hidden_dim=values.count("intermediate_size"),
        n_layers=values.count("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=values.optional("num_key_value_heads") or n_heads,
        vocab_size=values.count("vocab_size"),
        seq_len=seq_len,
        hidden_act=_ACTIVATIONS[activation],
        n_experts=values.optional("num_experts") or values.optional("num_local_experts") or 0,
        n_active_experts=values.optional("num_experts_per_tok") or 0,
        moe_hidden_dim=values.optional("moe_intermediate_size"),
        rope_theta=_real(values, rope, "rope_theta"),
        rope_scaling=_rope_scaling(values, rope),
        head_dim=head_dim,
        norm_epsilon=_real(values, config, "rms_norm_eps"),
        rope_type=family.rope_type,
        has_qkv_bias=family.has_qkv_bias,
        unrotated_layers=_unrotated_layers(values, config) if family.unrotated_step else (),
        scales=_scales(values, config, head_dim or dim // n_heads)
        if family.is_scaled
        else MappingProxyType({}),
    )


def _unrotated_layers(values: _ConfigValues, config: dict[str, Any]) -> tuple[int, ...]:
    """Return the layers that have a 0 in ``no_rope_layers``, whatever that is called."""
    flags = config.get("no_rope_layers")
    if not isinstance(flags, list) or len(flags) != values.count("num_hidden_layers"):
        raise values.refusal("no_rope_layers", "a 0 or 1 for each layer", flags)
    return tuple(layer for layer, rotated in enumerate(flags) if not rotated)


def _scales(values: _ConfigValues, config: dict[str, Any], head_dim: int) -> Mapping[str, float]:
    def factor(key: str, default: float) -> float:
        found = _real(values, config, key)
        return default if found is None else found

    return granite_scales(
        factor("embedding_multiplier", 1.0),
        factor("attention_multiplier", head_dim**-0.5),
        factor("residual_multiplier", 1.0),
        factor("logits_scaling", 1.0),
        head_dim,
    )


def _check_window(values: _ConfigValues, config: dict[str, Any], seq_len: int) -> None:
    window = values.optional("sliding_window")
    if config.get("use_sliding_window", True) and window and window < seq_len:
        raise UsageError(
            f"{values.path}: looks back {window} tokens only (sliding_window), which no node does: shorter "
            f"contexts are the same without, start with --max-seq-len {window}"
        )


def _rope_parameters(values: _ConfigValues, config: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of rotations, wherever it stands."""
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        found = config.get(key)
        if found is not None and not isinstance(found, dict):
            raise values.refusal(key, "an object or null", found)
        rope |= found or {}
    if "rope_theta" in config:
        rope.setdefault("rope_theta", config["rope_theta"])
    return rope


def _rope_scaling(values: _ConfigValues, rope: dict[str, Any]) -> Llama3Scaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise values.refusal("rope_scaling", "none, or llama3, as nodes rotate so only", kind)
    numbers = [_real(values, rope, key) for key in ("factor", "low_freq_factor", "high_freq_factor")]
    original = rope.get("original_max_position_embeddings")
    if None in numbers or type(original) is not int or not 0 < original <= _MAX:
        raise values.refusal("rope_scaling", "four positive numbers of llama3", rope)
    factor, low, high = (float(number or 0) for number in numbers)
    return Llama3Scaling(factor, low, high, original)


def _real(values: _ConfigValues, config: dict[str, Any], key: str) -> float | None:
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _MAX:
        raise values.refusal(key, "a positive number", value)
    return float(value)


class _ConfigValues:
    """Typed values of a configuration."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self._config = config

    def refusal(self, key: str, expected: str, got: object) -> UsageError:
        """Return the error that names a key, what nodes can do, and what the file has."""
        return UsageError(f"{self.path}: {key}: expected {expected}, got {str(got)[:60]}")

    def text(self, key: str) -> str:
        """Return a word."""
        value = self._config.get(key)
        if not isinstance(value, str):
            raise self.refusal(key, "a word", value)
        return value

    def optional(self, key: str) -> int | None:
        """Return a whole number, or None."""
        value = self._config.get(key)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= _MAX:
            raise self.refusal(key, f"a number from 0 to {_MAX}", value)
        return value

    def count(self, key: str) -> int:
        """Return a whole number of at least 1."""
        value = self.optional(key)
        if not value:
            raise self.refusal(key, "a number of at least 1", "none" if value is None else 0)
        return value
