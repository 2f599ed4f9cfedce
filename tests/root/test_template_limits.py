"""A chat template is a program from a file: what it may take, and how it ends where it takes more."""

from __future__ import annotations

import gc
import os
import signal
import threading

import pytest

from dllama_worker import timeouts
from dllama_worker.errors import UsageError
from dllama_worker.root.chat import Message
from dllama_worker.root.chat.jinja import JinjaTemplate

_TALK = [Message("user", "Hello")]
_FOR_EVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
_ALLOCATES = "{{ ('a' * 70000) * 70000 }}"
_RECURSES = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"
_DEEP = "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"
_LONG = "{% for a in range(80000) %}{{ 'x' * 1000 }}{% endfor %}"


def _template(source: str) -> JinjaTemplate:
    return JinjaTemplate(source)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (_FOR_EVER, "it takes longer than 0.5 s"),
        (_ALLOCATES, "it takes more than 512 MiB of memory"),
        (_RECURSES, "fails on this conversation: maximum recursion depth exceeded"),
        (_LONG, "it writes more than 64 MiB"),
    ],
    ids=["time", "memory", "depth", "length"],
)
def test_what_takes_too_much_is_ended(source: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = _template(source)
    if source is _FOR_EVER:
        monkeypatch.setattr(timeouts, "TEMPLATE", 0.5)
    with pytest.raises(UsageError, match=reason):
        template.render(_TALK)


@pytest.mark.parametrize("source", [_DEEP, "{{ '\udcff' }}{% if %}"], ids=["nested", "surrogate"])
def test_what_cannot_be_compiled_is_broken(source: str) -> None:
    with pytest.raises(UsageError, match=r"the model's chat template is broken: .*--chat-template"):
        _template(source)


def test_another_conversation_may_go_better(monkeypatch: pytest.MonkeyPatch) -> None:
    template = _template("{% if messages | length > 1 %}" + _FOR_EVER + "{% endif %}well")
    monkeypatch.setattr(timeouts, "TEMPLATE", 0.5)
    with pytest.raises(UsageError, match="takes longer"):
        template.render([*_TALK, *_TALK])
    monkeypatch.undo()
    assert template.render(_TALK).text == "well"


def test_ctrl_c_ends_a_template_that_runs() -> None:
    template = _template(_FOR_EVER)
    process = template.pid
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        template.render(_TALK)
    interrupt.join()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_process_ends_with_its_template() -> None:
    template = _template("well")
    process = template.pid
    os.kill(process, 0)
    del template
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_process_that_was_killed_is_started_anew() -> None:
    template = _template("well")
    killed = template.pid
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert template.render(_TALK).text == "well"
    assert template.pid != killed
