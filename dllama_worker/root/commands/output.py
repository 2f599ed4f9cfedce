"""Where a command's results go: text as it comes and a summary, or with ``--json`` one object at the end.

Generated text is all that standard output gets; questions and the summary go to standard error.
"""

from __future__ import annotations

import sys
from typing import Any

from dllama_proto.terminal import RunningText, print_json, print_line
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.session import RootSession
from dllama_worker.root.summary import node_figures, times_figures, write_summary

__all__ = ["Output"]


class Output:
    """What a command prints; with ``as_json`` nothing before :meth:`finish`.

    A terminal is shown the control sequences of generated text, unless ``raw``; it does not obey them.
    """

    def __init__(self, *, as_json: bool, raw: bool = False) -> None:
        self._as_json = as_json
        self._text = RunningText(raw=raw)

    def write(self, data: bytes) -> None:
        """Show generated text at once. Bytes, because a token may end inside a character."""
        if not self._as_json:
            self._text.write(data)

    def say(self, text: str) -> None:
        """Show text that was not generated, on standard output too; the prompt, for example."""
        self.write(text.encode("utf-8", "surrogateescape"))

    def note(self, text: str) -> None:
        """Tell the person something that is no result, below an empty line."""
        print_line("", sys.stderr)
        print_line(text, sys.stderr)

    def finish(
        self,
        session: RootSession,
        facts: dict[str, Any],
        evaluation: ForwardTimes,
        prediction: ForwardTimes | None = None,
    ) -> None:
        """Print the summary, or ``facts`` and the summary as JSON; ``prediction`` None generates nothing.

        The session must be over: only then do local workers tell what they did.
        """
        times = {"evaluation": evaluation} | ({} if prediction is None else {"prediction": prediction})
        nodes = node_figures(session, ForwardTimes.total(*times.values()))
        if not self._as_json:
            print_line("", sys.stderr)
            for line in write_summary(evaluation, prediction or ForwardTimes(), nodes):
                print_line(line, sys.stderr)
            return
        document = {
            **facts,
            "load_seconds": round(session.load_seconds, 3),
            **{name: times_figures(value) for name, value in times.items()},
            "nodes": nodes,
        }
        print_json(document, ascii_only=False)
