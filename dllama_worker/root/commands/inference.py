"""``dllama-root inference``: continues a prompt (C++ ``inference``, ``dllama.cpp``)."""

from __future__ import annotations

from dllama_worker.errors import UsageError
from dllama_worker.root.commands.output import Output
from dllama_worker.root.generation import Generation
from dllama_worker.root.options import RootOptions
from dllama_worker.root.sampler import Sampler
from dllama_worker.root.session import RootSession

__all__ = ["run_inference"]


def run_inference(session: RootSession, options: RootOptions) -> None:
    """Continue the prompt, showing text as it comes. Raises UsageError where it does not fit the context."""
    output = Output(as_json=options.as_json)
    prompt = options.prompt or ""
    tokens, leftover = session.tokenizer.encode_with_leftover(prompt)
    last = min(options.steps or session.inference.seq_len, session.inference.seq_len)
    if not tokens:
        raise UsageError(
            "the prompt has no tokens: this tokenizer adds none at the start, so give it some text"
        )
    if len(tokens) > last:
        raise UsageError(
            f"the prompt has {len(tokens)} tokens, more than the {last} of --steps or the context"
        )
    generation = Generation(session.inference, Sampler(options.temperature, options.topp, options.seed))
    limit = last - len(tokens) + 1
    if options.cpp_prompt_end and len(tokens) > 1:
        generation.evaluate(tokens[:-1])
        stream = generation.predict_after(leftover, limit)
    else:
        stream = generation.predict(generation.evaluate(tokens), limit)
    output.say(prompt)
    predicted, text = output.show(stream, session.tokenizer.decoder())
    output.say("\n")
    session.inference.finish()
    output.finish(
        session,
        {
            "command": "inference",
            "prompt": prompt,
            "prompt_tokens": tokens,
            "tokens": predicted,
            "text": text,
        },
        generation.evaluation,
        generation.prediction,
    )
