"""The three things a root does: continue a prompt, measure perplexity, chat."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from dllama_worker.errors import UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.chat import ChatContext, EosDetector, EosState, choose_template
from dllama_worker.root.decoder import TokenDecoder
from dllama_worker.root.generation import Generation, prompt_perplexity
from dllama_worker.root.options import RootOptions
from dllama_worker.root.sampler import Sampler
from dllama_worker.root.session import RootSession
from dllama_worker.root.summary import node_figures, times_figures, write_summary

__all__ = ["run_chat", "run_inference", "run_perplexity"]


def run_inference(session: RootSession, options: RootOptions) -> None:
    """Continue the prompt, showing text as it comes. Raises UsageError where it does not fit the context."""
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
    generation = Generation(session.inference, _sampler(options))
    limit = last - len(tokens) + 1
    if options.cpp_prompt_end and len(tokens) > 1:
        generation.evaluate(tokens[:-1])
        stream = generation.predict_after(leftover, limit)
    else:
        stream = generation.predict(generation.evaluate(tokens), limit)
    _say(options, prompt)
    predicted, text = _show(stream, session.tokenizer.decoder(), quiet=options.as_json)
    _say(options, "\n")
    session.inference.finish()
    total = ForwardTimes.total(generation.evaluation, generation.prediction)
    nodes = node_figures(session, total)
    _finish(
        options,
        {
            "command": "inference",
            "prompt": prompt,
            "prompt_tokens": tokens,
            "tokens": predicted,
            "text": text,
            "load_seconds": round(session.load_seconds, 3),
            "evaluation": times_figures(generation.evaluation),
            "prediction": times_figures(generation.prediction),
            "nodes": nodes,
        },
        write_summary(generation.evaluation, generation.prediction, nodes),
    )


def run_perplexity(session: RootSession, options: RootOptions) -> None:
    """Tell how well the model foresees the prompt. Raises UsageError where it is too short or too long."""
    tokens = session.tokenizer.encode(options.prompt or "")
    if not 2 <= len(tokens) <= session.inference.seq_len:
        raise UsageError(
            f"perplexity needs a prompt of 2 to {session.inference.seq_len} tokens, this one has {len(tokens)}"
        )
    times = ForwardTimes()
    perplexity = prompt_perplexity(session.inference, tokens, times)
    session.inference.finish()
    nodes = node_figures(session, times)
    _say(options, f"perplexity: {perplexity:.6f} ({len(tokens)} tokens, lower is better)\n")
    _finish(
        options,
        {
            "command": "perplexity",
            "prompt_tokens": tokens,
            "perplexity": perplexity,
            "load_seconds": round(session.load_seconds, 3),
            "evaluation": times_figures(times),
            "nodes": nodes,
        },
        write_summary(times, ForwardTimes(), nodes),
    )


def run_chat(session: RootSession, options: RootOptions) -> None:
    """Talk until the input or the context ends."""
    inference, tokenizer = session.inference, session.tokenizer
    template = choose_template(tokenizer, options.chat_template)
    generation = Generation(inference, _sampler(options))
    context = ChatContext(template, tokenizer)
    if system := _ask("System prompt (optional): "):
        context.say("system", system)
    replies: list[dict[str, str]] = []
    while (said := _ask("\nUser\n> ")) is not None:
        if not said:
            continue
        context.say("user", said)
        prompt, inference.position, tokens = context.next_prompt()
        if inference.position + len(tokens) > inference.seq_len:
            _say_end_of_context()
            break
        start = inference.position
        _say(options, f"\nAssistant\n{prompt.shown}")
        stream = generation.predict(generation.evaluate(tokens), inference.seq_len)
        predicted, reply = _show_reply(stream, session, quiet=options.as_json)
        context.evaluated(start, [*tokens, *predicted][: inference.position - start])
        context.say("assistant", reply)
        replies.append({"user": said, "assistant": reply})
        if inference.position >= inference.seq_len:
            _say_end_of_context()
            break
    inference.finish()
    total = ForwardTimes.total(generation.evaluation, generation.prediction)
    nodes = node_figures(session, total)
    document = {
        "command": "chat",
        "template": template.name,
        "turns": replies,
        "load_seconds": round(session.load_seconds, 3),
        "evaluation": times_figures(generation.evaluation),
        "prediction": times_figures(generation.prediction),
        "nodes": nodes,
    }
    _say(options, "\n")
    _finish(options, document, write_summary(generation.evaluation, generation.prediction, nodes))


def _sampler(options: RootOptions) -> Sampler:
    return Sampler(options.temperature, options.topp, options.seed)


def _show(stream: Iterable[int], decoder: TokenDecoder, *, quiet: bool) -> tuple[list[int], str]:
    """Write each token's text as soon as it is there; return the tokens and the whole text."""
    tokens: list[int] = []
    text = bytearray()
    for token in stream:
        tokens.append(token)
        piece = decoder.decode(token) or b""
        text += piece
        if not quiet:
            _write(piece)
    return tokens, text.decode("utf-8", "replace")


def _show_reply(stream: Iterable[int], session: RootSession, *, quiet: bool) -> tuple[list[int], str]:
    """Write a reply up to the model's end of it (C++ ``chat``); return its tokens and its text."""
    decoder = session.tokenizer.decoder()
    detector = EosDetector.of(session.tokenizer.file)
    tokens: list[int] = []
    text = bytearray()

    def show() -> None:
        delta = detector.delta() or b""
        text.extend(delta)
        if not quiet:
            _write(delta)
        detector.reset()

    for token in stream:
        tokens.append(token)
        state = detector.append(token, decoder.decode(token))
        if state is EosState.MAYBE_EOS:
            continue
        show()
        if state is EosState.EOS:
            break
    show()  # what was held back as the beginning of an end that did not come
    return tokens, text.decode("utf-8", "replace")


def _ask(question: str) -> str | None:
    """Read a line from the person; None at the end of the input. The question goes to standard error."""
    print(question, end="", flush=True, file=sys.stderr)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _say_end_of_context() -> None:
    print("\n(end of context)", file=sys.stderr)


def _say(options: RootOptions, text: str) -> None:
    if not options.as_json:
        _write(text.encode("utf-8", "surrogateescape"))


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _finish(options: RootOptions, document: dict[str, Any], summary: str) -> None:
    if options.as_json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        print(f"\n{summary}", file=sys.stderr)
