"""A small trained model that comes with the package, so that a cluster can be tried without a download.

A Llama of 2.6 million parameters (dim 256, 4 layers, 8 heads, 4 key-value heads, 512 tokens, Q40 weights)
trained on Shakespeare's plays, and its tokenizer. It writes mock Shakespeare; try the prompt ``ROMEO:``.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL_PATH", "TOKENIZER_PATH"]

#: The .m file; 1, 2 or 4 nodes can share it evenly.
MODEL_PATH = Path(__file__).parent / "demo-q40.m"
#: The .t file.
TOKENIZER_PATH = Path(__file__).parent / "demo.t"
