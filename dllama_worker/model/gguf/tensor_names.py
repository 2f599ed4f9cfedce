"""Which tensor of a GGUF file is which weight of a model (llama.cpp's ``gguf-py/gguf/tensor_mapping.py``).

Rows are stored as nodes take them, [outputs][inputs]; heads of ``llama`` are interleaved already, as its ROPE
wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dllama_proto.model_file import TensorEntry
from dllama_proto.names import WeightName

__all__ = ["tensor_name"]

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        WeightName.EMBEDDING: "token_embd.weight",
        WeightName.Q: "blk.{layer}.attn_q.weight",
        WeightName.K: "blk.{layer}.attn_k.weight",
        WeightName.V: "blk.{layer}.attn_v.weight",
        WeightName.BIAS_Q: "blk.{layer}.attn_q.bias",
        WeightName.BIAS_K: "blk.{layer}.attn_k.bias",
        WeightName.BIAS_V: "blk.{layer}.attn_v.bias",
        WeightName.WO: "blk.{layer}.attn_output.weight",
        WeightName.MOE_GATE: "blk.{layer}.ffn_gate_inp.weight",
        WeightName.W1: "blk.{layer}.ffn_gate.weight",
        WeightName.W2: "blk.{layer}.ffn_down.weight",
        WeightName.W3: "blk.{layer}.ffn_up.weight",
        WeightName.NORM_Q: "blk.{layer}.attn_q_norm.weight",
        WeightName.NORM_K: "blk.{layer}.attn_k_norm.weight",
        WeightName.NORM_0: "blk.{layer}.attn_norm.weight",
        WeightName.NORM_1: "blk.{layer}.ffn_norm.weight",
        WeightName.FINAL_NORM: "output_norm.weight",
        WeightName.LOGITS: "output.weight",
    }
)

#: All experts of a layer are in one tensor, one after another.
_EXPERTS: Mapping[str, str] = MappingProxyType(
    {
        WeightName.W1: "blk.{layer}.ffn_gate_exps.weight",
        WeightName.W2: "blk.{layer}.ffn_down_exps.weight",
        WeightName.W3: "blk.{layer}.ffn_up_exps.weight",
    }
)


#: Of families that store some matrices as one, below each other.
_FUSED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys((WeightName.Q, WeightName.K, WeightName.V), "blk.{layer}.attn_qkv.weight")
    | dict.fromkeys((WeightName.W1, WeightName.W3), "blk.{layer}.ffn_up.weight")
)


def tensor_name(entry: TensorEntry, *, is_fused: bool = False) -> str:
    """Return the name of the tensor that an entry's rows are in."""
    names = _NAMES if entry.expert is None else _EXPERTS
    if is_fused:
        names = {**names, **_FUSED}
    return names[entry.name].format(layer=entry.layer)
