"""``dllama-root perplexity``: how well the model predicts a text (C++ ``perplexity``, ``dllama.cpp``)."""

from __future__ import annotations

from dllama_proto.formatting import counted
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.commands.output import Output
from dllama_worker.root.interrupt import Interrupt
from dllama_worker.root.options import RootOptions
from dllama_worker.root.perplexity import Score, make_windows, measure_text
from dllama_worker.root.session import RootSession

__all__ = ["run_perplexity"]


def run_perplexity(session: RootSession, options: RootOptions) -> None:
    """Tell how well the model predicts the prompt; after Ctrl-C, as much of it as was read.

    Raises UsageError where the prompt is too short or the stride too long, KeyboardInterrupt after the summary.
    """
    output = Output(as_json=options.as_json)
    inference, pieces = session.inference, session.tokenizer.vocabulary.pieces
    tokens = session.tokenizer.encode(options.prompt or "")
    context = inference.seq_len
    stride = options.stride or max(1, context // 2)
    windows = make_windows(len(tokens), context, stride)

    def size(token: int) -> int:
        return len(pieces[token].partition(b"\0")[0])

    times, score = ForwardTimes(), Score()
    n_evaluated = sum(window.stop - 1 - window.start for window in windows)
    with (
        Interrupt() as interrupt,
        session.report.progress("perplexity", "perplexity", n_evaluated, "tokens") as advance,
    ):
        for n in measure_text(inference, tokens, windows, size, times, score):
            advance(n)
            if interrupt():
                break
    inference.finish()
    how = "" if len(windows) == 1 else f"in {len(windows)} windows of {context}, stride {stride}, "
    stopped = score.n_tokens < len(tokens) - 1
    of = f"{score.n_tokens} counted before it was stopped, of " if stopped else ""
    output.say(f"perplexity: {score.perplexity:.6f} ({of}{len(tokens)} tokens, {how}lower is better)\n")
    output.say(f"bits per byte: {score.bits_per_byte:.6f} ({counted(score.n_bytes, 'byte')})\n")
    output.finish(
        session,
        {
            "command": "perplexity",
            "prompt_tokens": tokens,
            "perplexity": score.perplexity,
            "bits_per_byte": score.bits_per_byte,
            "counted_tokens": score.n_tokens,
            "counted_bytes": score.n_bytes,
            "context": context,
            "stride": stride,
            "windows": len(windows),
        },
        times,
    )
    if interrupt():
        raise KeyboardInterrupt
