"""The three things a root does with a session: continue a prompt, measure perplexity, chat."""

from __future__ import annotations

from dllama_worker.root.commands.chat import run_chat
from dllama_worker.root.commands.inference import run_inference
from dllama_worker.root.commands.perplexity import run_perplexity

__all__ = ["run_chat", "run_inference", "run_perplexity"]
