"""``dllama-root perplexity``: how well the model predicts a text (C++ ``perplexity``, ``dllama.cpp``)."""

from __future__ import annotations

from dllama_worker.errors import UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.commands.output import Output
from dllama_worker.root.generation import prompt_perplexity
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import RootSession

__all__ = ["run_perplexity"]


def run_perplexity(session: RootSession, options: RootOptions) -> None:
    """Tell how well the model predicts the prompt. Raises UsageError where it is too short or too long."""
    output = Output(as_json=options.as_json)
    tokens = session.tokenizer.encode(options.prompt or "")
    if not 2 <= len(tokens) <= session.inference.seq_len:
        raise UsageError(
            f"perplexity needs a prompt of 2 to {session.inference.seq_len} tokens, this one has {len(tokens)}"
        )
    times = ForwardTimes()
    perplexity = prompt_perplexity(session.inference, tokens, times)
    session.inference.finish()
    output.say(f"perplexity: {perplexity:.6f} ({len(tokens)} tokens, lower is better)\n")
    output.finish(
        session,
        {"command": "perplexity", "prompt_tokens": tokens, "perplexity": perplexity},
        times,
    )
