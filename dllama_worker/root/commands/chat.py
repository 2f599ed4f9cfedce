"""``dllama-root chat``: a conversation on the terminal (C++ ``chat``, ``dllama.cpp``)."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from dllama_proto.terminal import print_line
from dllama_worker.root.chat import ChatContext, EosDetector, EosState, choose_template
from dllama_worker.root.commands.output import Output
from dllama_worker.root.generation import Generation
from dllama_worker.root.options import RootOptions
from dllama_worker.root.sampler import Sampler
from dllama_worker.root.session import RootSession

__all__ = ["run_chat"]


def run_chat(session: RootSession, options: RootOptions) -> None:
    """Talk until the input or the context ends."""
    output = Output(as_json=options.as_json)
    inference, tokenizer = session.inference, session.tokenizer
    template = choose_template(tokenizer, options.chat_template)
    generation = Generation(inference, Sampler(options.temperature, options.topp, options.seed))
    context = ChatContext(template, tokenizer)
    if system := _ask("System prompt (optional): "):
        context.say("system", system)
    turns: list[dict[str, str]] = []
    while (said := _ask("\nUser\n> ")) is not None:
        if not said:
            continue
        context.say("user", said)
        prompt, inference.position, tokens = context.next_prompt()
        if inference.position + len(tokens) > inference.seq_len:
            output.note("(end of context)")
            break
        start = inference.position
        output.say(f"\nAssistant\n{prompt.shown}")
        stream = generation.predict(generation.evaluate(tokens), inference.seq_len)
        predicted, reply = _show_reply(stream, session, output)
        context.evaluated(start, [*tokens, *predicted][: inference.position - start])
        context.say("assistant", reply)
        turns.append({"user": said, "assistant": reply})
        if inference.position >= inference.seq_len:
            output.note("(end of context)")
            break
    session.inference.finish()
    output.say("\n")
    output.finish(
        session,
        {"command": "chat", "template": template.name, "turns": turns},
        generation.evaluation,
        generation.prediction,
    )


def _show_reply(stream: Iterable[int], session: RootSession, output: Output) -> tuple[list[int], str]:
    """Write a reply up to the model's end of it; return its tokens and its text."""
    decoder = session.tokenizer.decoder()
    detector = EosDetector.of(session.tokenizer.file)
    tokens: list[int] = []
    text = bytearray()

    def show() -> None:
        delta = detector.delta() or b""
        text.extend(delta)
        output.write(delta)
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
    *above, last = question.split("\n")
    for line in above:
        print_line(line, sys.stderr)
    print_line(last, sys.stderr, ends=False)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
