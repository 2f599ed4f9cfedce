"""``dllama-root chat``: a conversation on the terminal (C++ ``chat``, ``dllama.cpp``)."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from dllama_proto.formatting import counted
from dllama_proto.terminal import print_line
from dllama_worker.errors import UsageError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.chat import ChatContext, EosDetector, EosState, Reading, choose_template
from dllama_worker.root.chat.commands import COMMANDS, ChatCommands
from dllama_worker.root.chat.jinja import JinjaTemplate
from dllama_worker.root.chat.line_input import open_line_input
from dllama_worker.root.commands.output import Output
from dllama_worker.root.generation import Generation
from dllama_worker.root.interrupt import Interrupt
from dllama_worker.root.options import RootOptions
from dllama_worker.root.sampler import Sampler
from dllama_worker.root.session import RootSession

__all__ = ["run_chat"]


def run_chat(session: RootSession, options: RootOptions) -> None:
    """Talk until the input ends. Ctrl-C ends a reply; while the person is asked, the chat.

    Raises UsageError where the conversation cannot be written and nobody sits there to say something else,
    KeyboardInterrupt after the summary.
    """
    output = Output(as_json=options.as_json, raw=options.raw)
    template = choose_template(session.tokenizer, options.chat_template, options.template_variables)
    if isinstance(template, JinjaTemplate) and template.unused:
        unused, names = ", ".join(template.unused), ", ".join(template.names)
        output.note(f"(the chat template does not look at {unused}, only at {names})")
    chat = _Chat(session, options, ChatContext(template, session.tokenizer), output)
    interrupted = False
    try:
        chat.talk(options.system)
    except KeyboardInterrupt:
        if not chat.is_waiting:  # the nodes are in the middle of a forward
            raise
        interrupted = True
    session.inference.finish()
    output.say("\n")
    output.finish(
        session,
        {"command": "chat", "template": template.name, "turns": chat.turns},
        chat.evaluation,
        chat.prediction,
    )
    if interrupted:
        raise KeyboardInterrupt


class _Chat:
    """A conversation in progress; ``is_waiting`` while no node computes."""

    def __init__(
        self, session: RootSession, options: RootOptions, context: ChatContext, output: Output
    ) -> None:
        self.turns: list[dict[str, str]] = []
        self.evaluation = ForwardTimes()
        self.prediction = ForwardTimes()
        self.is_waiting = True
        self._session = session
        self._inference = session.inference
        self._context = context
        self._output = output
        self._as_json = options.as_json
        self._sampler = Sampler(
            options.temperature, options.topp, options.seed, session.tokenizer.vocab_size
        )
        self._input = open_line_input(tuple(COMMANDS))
        self._commands = ChatCommands(context, lambda line: print_line(line, sys.stderr), self._stats)

    def talk(self, system: str | None) -> None:
        """Ask and reply; ``system`` None asks for the system prompt first."""
        if system is None:
            system = self._input.ask("System prompt (optional): ")
        self._context.system = system or ""
        while (said := self._input.ask("\nUser\n> ")) is not None:
            if said.startswith("/") and not said.startswith("//"):
                if not self._commands.run(said):
                    return
            elif said:
                self._reply_to(said.removeprefix("/") if said.startswith("//") else said)

    def _reply_to(self, said: str) -> None:
        self._context.say("user", said)
        seq_len = self._inference.seq_len
        try:
            reading = self._context.next_prompt_within(seq_len)
        except UsageError as error:
            self._context.take_back()
            if not self._input.interactive:
                raise
            self._output.note(f"({error})")
            return
        if reading is None:
            self._context.take_back()
            self._output.note(f"(the message is longer than the context of {seq_len} tokens: say less)")
            return
        if reading.n_dropped:
            n = reading.n_dropped
            turns = "the oldest turn is" if n == 1 else f"the oldest {n} turns are"
            self._output.note(f"(the context of {seq_len} tokens is full: {turns} left out)")
        self._generate(said, reading)

    def _generate(self, said: str, reading: Reading) -> None:
        inference, context = self._inference, self._context
        inference.position = reading.position
        self._output.say(f"\nAssistant\n{reading.prompt.shown}")
        self.is_waiting = False
        with Interrupt() as interrupt:
            generation = Generation(inference, self._sampler, interrupt)
            logits = generation.evaluate(reading.tokens)
            predicted, reply = self._show_reply(generation.predict(logits, inference.seq_len))
        self.is_waiting = True
        self.evaluation = ForwardTimes.total(self.evaluation, generation.evaluation)
        self.prediction = ForwardTimes.total(self.prediction, generation.prediction)
        known = [*reading.tokens, *predicted][: inference.position - reading.position]
        context.evaluated(reading.position, known)
        if interrupt() and not predicted:
            context.take_back()
            self._output.note("(stopped before the reply; the message is taken back)")
            return
        context.say("assistant", reply)
        self.turns.append({"user": said, "assistant": reply})
        if interrupt():
            self._output.note("(stopped)")
        elif inference.position >= inference.seq_len:
            self._output.note("(end of context)")
        if not self._as_json:
            rate = generation.prediction.rows_per_second
            speed = f", {rate:.1f} tokens/s" if rate else ""
            self._output.note(f"({counted(len(predicted), 'token')}{speed})")

    def _show_reply(self, stream: Iterable[int]) -> tuple[list[int], str]:
        """Write a reply up to the model's end of it; return its tokens and its text."""
        decoder = self._session.tokenizer.decoder()
        detector = EosDetector.of(self._session.tokenizer.vocabulary)
        tokens: list[int] = []
        text = bytearray()

        def show() -> None:
            delta = detector.delta() or b""
            text.extend(delta)
            self._output.write(delta)
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

    def _stats(self) -> list[str]:
        lines = []
        for name, times in (("evaluated", self.evaluation), ("generated", self.prediction)):
            rate = f", {times.rows_per_second:.1f} tokens/s" if times.rows else ""
            lines.append(f"{name}: {counted(times.rows, 'token')}{rate}")
        used, seq_len = self._inference.position, self._inference.seq_len
        n_said = len(self._context.messages)
        return [*lines, f"context: {used} of {seq_len} tokens, {counted(n_said, 'message')}"]
