"""Small GGUF models with the logits that transformers computes of them, and the same as a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dllama_worker.model.gguf.shards import read_gguf

__all__ = ["TINY_MODELS", "expected_logits", "tiny_gguf", "write_llama_folder", "write_safetensors"]

TINY_MODELS = Path(__file__).parents[1] / "data" / "models"


def tiny_gguf(name: str) -> Path:
    """Return the path of ``tiny-NAME.gguf``."""
    return TINY_MODELS / f"tiny-{name}.gguf"


def expected_logits(name: str) -> tuple[list[int], np.ndarray]:
    """Return the tokens and the logits of each position that transformers has for a model's weights."""
    with np.load(TINY_MODELS / f"tiny-{name}-hf.npz") as stored:
        return stored["ids"].tolist(), stored["logits"]


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    """Write tensors of F32 as a .safetensors file of F32, F16 or BF16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        stored = _stored(values, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(stored)],
        }
        data += stored
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _stored(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_up": "mlp.up_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OTHERS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def write_llama_folder(folder: Path, dtype: str = "F32") -> dict[str, Any]:
    """Write the tiny llama as transformers would save it; return its configuration."""
    model = read_gguf(tiny_gguf("llama-f32"))
    facts = {key.removeprefix("llama."): value for key, value in model.metadata.items()}
    tensors: dict[str, np.ndarray] = {}
    for name, (file, tensor) in model.tensors.items():
        if name == "rope_freqs.weight":
            continue
        stored = file.data[tensor.offset : tensor.offset + tensor.n_bytes].view("<f4")
        values = stored.reshape(tensor.dims[::-1])
        if name in _OTHERS:
            tensors[_OTHERS[name]] = values
            continue
        _, layer, kind, _ = name.split(".")
        if kind in ("attn_q", "attn_k"):
            heads = facts["attention.head_count" if kind == "attn_q" else "attention.head_count_kv"]
            # Interleaved here, half-split there.
            values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        tensors[f"model.layers.{layer}.{_NAMES[kind]}.weight"] = values
    config = {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": facts["embedding_length"],
        "intermediate_size": facts["feed_forward_length"],
        "num_hidden_layers": facts["block_count"],
        "num_attention_heads": facts["attention.head_count"],
        "num_key_value_heads": facts["attention.head_count_kv"],
        "head_dim": facts["attention.key_length"],
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "max_position_embeddings": facts["context_length"],
        "rms_norm_eps": 1e-5,
        "rope_theta": facts["rope.freq_base"],
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", tensors, dtype)
    return config
