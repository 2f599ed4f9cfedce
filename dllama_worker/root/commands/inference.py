"""``dllama-root inference``: continues a prompt (C++ ``inference``, ``dllama.cpp``)."""

from __future__ import annotations

from dllama_proto.formatting import counted
from dllama_worker.errors import UsageError
from dllama_worker.root.commands.output import Output
from dllama_worker.root.completion import Completion
from dllama_worker.root.interrupt import Interrupt
from dllama_worker.root.options import GenerationOptions, RootOptions
from dllama_worker.root.session import RootSession

__all__ = ["run_inference"]


def run_inference(session: RootSession, options: RootOptions) -> None:
    """Continue the prompt, showing text as it comes, until its end or Ctrl-C.

    Raises UsageError where the prompt does not fit the context, KeyboardInterrupt after the summary.
    """
    output = Output(as_json=options.as_json, raw=options.raw)
    prompt = options.prompt or ""
    tokens = session.tokenizer.encode(prompt)
    leftover = session.tokenizer.cpp_leftover(prompt) if options.cpp_prompt_end else None
    last = min(options.steps or session.inference.seq_len, session.inference.seq_len)
    if len(tokens) > last:
        raise UsageError(
            f"the prompt has {counted(len(tokens), 'token')}, more than the {last} of --steps or the context"
        )
    with Interrupt() as interrupt:
        completion = Completion(
            session.inference,
            session.tokenizer,
            tokens,
            GenerationOptions(
                max_tokens=last - len(tokens) + 1,
                ignore_eos=True,  # as the C++ program
                temperature=options.temperature,
                topp=options.topp,
                seed=options.seed,
            ),
            last_token=leftover if len(tokens) > 1 else None,
            stopped=interrupt,
        )
        output.say(prompt)
        for piece in completion:
            output.say(piece)
    output.say("\n")
    session.inference.finish()
    output.finish(
        session,
        {
            "command": "inference",
            "prompt": prompt,
            "prompt_tokens": tokens,
            "tokens": completion.tokens,
            "text": completion.text,
        },
        completion.timings.evaluation,
        completion.timings.prediction,
    )
    if interrupt():
        raise KeyboardInterrupt
