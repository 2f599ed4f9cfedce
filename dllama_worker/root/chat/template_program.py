"""Renders a chat template: a program of its own, so that what a template does costs no more than this process.

It imports nothing of this package, so that it starts fast, and is run by
:mod:`dllama_worker.root.chat.jinja`. A line of JSON comes in for each line that goes out: first the template,
then conversations. It ends with its input.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import sys
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["main"]


def main() -> None:
    """Serve until the input ends. The arguments: bytes of memory, and the seconds that an answer may take."""
    max_bytes, seconds = int(sys.argv[1]), int(sys.argv[2])
    template: Template | None = None
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    answers = open(1, "w", encoding="ascii", buffering=1)  # noqa: SIM115 - both ends are pipes, as long as it lives
    for line in sys.stdin:
        signal.alarm(seconds)  # ends it also where nobody is left to do so
        try:
            wanted = json.loads(line)
            if template is None:
                template = _compile(wanted["source"])
                answer = {"text": ""}
            else:
                answer = {"text": template.render(wanted)}
            text = json.dumps(answer)
        except MemoryError:
            text = json.dumps({"error": None})
        # A template is a program: it can fail in any way that Python can.
        except Exception as error:
            text = json.dumps({"error": str(error)[:1000]})
        answers.write(text + "\n")
        signal.alarm(0)


def _compile(source: str) -> Template:
    """Return the template with what Hugging Face transformers gives templates (``apply_chat_template``)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


if __name__ == "__main__":
    main()
