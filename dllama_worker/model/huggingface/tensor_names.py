"""Which tensor of a folder is which weight of a model (transformers' ``modeling_llama.py`` and its like)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dllama_proto.model_file import TensorEntry
from dllama_proto.names import WeightName

__all__ = ["EMBEDDING", "tensor_name"]

EMBEDDING = "model.embed_tokens.weight"

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        WeightName.EMBEDDING: EMBEDDING,
        WeightName.Q: "model.layers.{layer}.self_attn.q_proj.weight",
        WeightName.K: "model.layers.{layer}.self_attn.k_proj.weight",
        WeightName.V: "model.layers.{layer}.self_attn.v_proj.weight",
        WeightName.BIAS_Q: "model.layers.{layer}.self_attn.q_proj.bias",
        WeightName.BIAS_K: "model.layers.{layer}.self_attn.k_proj.bias",
        WeightName.BIAS_V: "model.layers.{layer}.self_attn.v_proj.bias",
        WeightName.WO: "model.layers.{layer}.self_attn.o_proj.weight",
        WeightName.MOE_GATE: "model.layers.{layer}.mlp.gate.weight",
        WeightName.W1: "model.layers.{layer}.mlp.gate_proj.weight",
        WeightName.W2: "model.layers.{layer}.mlp.down_proj.weight",
        WeightName.W3: "model.layers.{layer}.mlp.up_proj.weight",
        WeightName.NORM_Q: "model.layers.{layer}.self_attn.q_norm.weight",
        WeightName.NORM_K: "model.layers.{layer}.self_attn.k_norm.weight",
        WeightName.NORM_0: "model.layers.{layer}.input_layernorm.weight",
        WeightName.NORM_1: "model.layers.{layer}.post_attention_layernorm.weight",
        WeightName.FINAL_NORM: "model.norm.weight",
        WeightName.LOGITS: "lm_head.weight",
    }
)
_EXPERTS: Mapping[str, str] = MappingProxyType(
    {
        WeightName.W1: "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
        WeightName.W2: "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight",
        WeightName.W3: "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight",
    }
)


#: Of families that store some matrices as one, below each other.
_FUSED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        (WeightName.Q, WeightName.K, WeightName.V), "model.layers.{layer}.self_attn.qkv_proj.weight"
    )
    | dict.fromkeys((WeightName.W1, WeightName.W3), "model.layers.{layer}.mlp.gate_up_proj.weight")
)


def tensor_name(entry: TensorEntry, *, is_fused: bool = False) -> str:
    """Return the name of the tensor that an entry's rows are in."""
    names = _NAMES if entry.expert is None else _EXPERTS
    if is_fused:
        names = {**names, **_FUSED}
    return names[entry.name].format(layer=entry.layer, expert=entry.expert)
