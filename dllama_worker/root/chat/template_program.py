"""Renders a chat template: a program of its own, so that what a template does costs no more than this process.

It imports nothing of this package, so that it starts fast, and is run by
:mod:`dllama_worker.root.chat.template_process`. A line of JSON comes in for each line that goes out: first the
template, then what conversations give it. It ends with its input.

Templates find here what Hugging Face transformers gives them (``apply_chat_template``), and nothing more.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

__all__ = ["main"]


def main() -> None:
    """Serve until the input ends. The arguments: bytes of memory, and the seconds that an answer may take."""
    max_bytes, seconds = int(sys.argv[1]), int(sys.argv[2])
    environment = _environment()
    template: Template | None = None
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    answers = open(1, "w", encoding="ascii", buffering=1)  # noqa: SIM115 - both ends are pipes, as long as it lives
    for line in sys.stdin:
        signal.alarm(seconds)  # ends it also where nobody is left to do so
        try:
            wanted = json.loads(line)
            answer: dict[str, Any]
            if template is None:
                template = environment.from_string(wanted["source"])
                answer = {"names": _names(environment, wanted["source"])}
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


def _environment() -> Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _strftime_now,
        "namespace": _PublicNamespace,
        "dict": _Dict(),
    }
    return environment


def _names(environment: Environment, source: str) -> list[str]:
    """Return the variables that a template looks at."""
    return sorted(find_undeclared_variables(environment.parse(source)))


class _GenerationBlock(Extension):
    """``{% generation %}``: marks what an assistant said, for training; it is written as it stands.

    As in transformers the block is one of a call: what is set in it is not seen behind it.
    """

    tags = {"generation"}  # noqa: RUF012 - the base class has it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Read the block to its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_written")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _written(self, caller: Callable[[], str]) -> str:
        return caller()


class _PublicNamespace(Namespace):
    """``namespace()``, without names that begin with an underscore."""

    def __init__(*args: Any, **attributes: Any) -> None:
        """Take the same arguments as ``dict``, ``self`` among the names. Raises SecurityError."""
        given = dict(*args[1:], **attributes)
        for name in given:
            _check_public(name)
        Namespace.__init__(args[0], given)

    def __setitem__(self, name: str, value: Any) -> None:
        """Set an attribute. Raises SecurityError."""
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no names that begin with an underscore, got {name!r}")


class _Dict:
    """``dict``, as far as templates need it: not the type, through which more could be reached."""

    def __call__(self, *args: Any, **items: Any) -> dict[Any, Any]:
        return dict(*args, **items)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """Do what ``dict.fromkeys`` does."""
        return dict.fromkeys(*args)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


if __name__ == "__main__":
    main()
