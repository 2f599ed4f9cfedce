"""Chat templates in Jinja: what they write is what Hugging Face transformers writes, of recorded conversations."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.tokenizer_file import TokenizerFile
from dllama_worker.errors import UsageError
from dllama_worker.root.chat import Message, choose_template
from dllama_worker.root.chat.jinja import JinjaTemplate
from dllama_worker.tokenizer.chat_templates import ChatTemplates
from dllama_worker.tokenizer.greedy import GreedyTokenizer

_FOLDER = Path(__file__).parents[1] / "data" / "chat_templates"
_RECORDED = json.loads((_FOLDER / "recorded.json").read_text(encoding="utf-8"))
_TALK = [Message("user", "Hello")]


@pytest.mark.parametrize("name", _RECORDED["answers"])
def test_every_template_writes_what_transformers_does(name: str) -> None:
    source = (_FOLDER / name).read_text(encoding="utf-8")
    for given, ours, expected in zip(
        _RECORDED["given"], _written(source), _RECORDED["answers"][name], strict=True
    ):
        # Where in the code that Jinja makes an error is, is nobody's concern.
        reason = expected.get("error", "no error").partition(" (")[0]
        assert ours == expected or reason in ours.get("error", ""), given


def _written(source: str) -> list[dict[str, str]]:
    """Return a text or an error for each of the recorded conversations."""
    try:
        template = JinjaTemplate(source, _RECORDED["tokens"])
    except UsageError as error:
        return [{"error": str(error)}] * len(_RECORDED["given"])
    return [_answer(template, given) for given in _RECORDED["given"]]


def _answer(template: JinjaTemplate, given: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": template.text(**given)}
    except UsageError as error:
        return {"error": str(error)}


def test_the_date_is_today_s() -> None:
    before = datetime.date.today()
    text = JinjaTemplate("{{ strftime_now('%d %b %Y') }}").text([])
    assert text in {day.strftime("%d %b %Y") for day in (before, datetime.date.today())}


@pytest.mark.parametrize(
    "where", ["{% set ns = namespace(_a=1) %}", "{% set ns = namespace() %}{% set ns._a = 1 %}"]
)
def test_a_namespace_takes_no_private_names(where: str) -> None:
    with pytest.raises(UsageError, match="begin with an underscore, got '_a'"):
        JinjaTemplate(where).text([])


@pytest.mark.parametrize(
    "source", ["{{ dict.mro() }}", "{{ dict.__class__.x }}", "{{ namespace.__init__.x }}"]
)
def test_what_templates_are_given_leads_nowhere(source: str) -> None:
    with pytest.raises(UsageError, match=r"undefined|unsafe|has no attribute"):
        JinjaTemplate(source).text([])


def _tokenizer(sources: dict[str, str], *, add_bos: bool = True) -> GreedyTokenizer:
    file = TokenizerFile.of([b"a", b"<s>", b"</s>"], [0.0] * 3, bos_id=1, eos_ids=[2], add_bos=add_bos)
    tokenizer = GreedyTokenizer(file)
    special = tokenizer.vocabulary.templates.special_tokens
    object.__setattr__(tokenizer.vocabulary, "templates", ChatTemplates(sources, special))
    return tokenizer


def test_the_beginning_is_written_once() -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    assert choose_template(_tokenizer({"default": source})).render(_TALK).text == "Hello</s>"
    assert (
        choose_template(_tokenizer({"default": source}, add_bos=False)).render(_TALK).text == "<s>Hello</s>"
    )


def test_of_several_templates_one_is_chosen_by_tools() -> None:
    tokenizer = _tokenizer({"default": "d", "tool_use": "t", "rag": "r"})
    assert choose_template(tokenizer).render(_TALK).text == "d"
    assert choose_template(tokenizer, variables={"tools": None}).render(_TALK).text == "d"
    assert choose_template(tokenizer, variables={"tools": []}).render(_TALK).text == "t"


def test_of_several_templates_one_is_chosen_by_its_name() -> None:
    tokenizer = _tokenizer({"default": "d", "tool_use": "t", "rag": "r"})
    named = choose_template(tokenizer, "rag")
    assert (named.name, named.render(_TALK).text) == ("the model's own, rag", "r")
    assert choose_template(tokenizer, "default", {"tools": []}).render(_TALK).text == "d"
    with pytest.raises(UsageError, match=r"those of the model \(default, tool_use, rag\), and files"):
        choose_template(tokenizer, "tools")
    with pytest.raises(UsageError, match="chat templates for rag and no default one: choose one with"):
        choose_template(_tokenizer({"rag": "r"}))


def test_a_template_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_bytes("é{{ x }}".encode())
    template = choose_template(_tokenizer({}), str(path), {"x": 1})
    assert (template.name, template.render(_TALK).text) == (str(path), "é1")
    path.write_text("{% if %}")
    with pytest.raises(UsageError, match=r"^the chat template .*mine.jinja is broken: Expected"):
        choose_template(_tokenizer({}), str(path))
    with pytest.raises(UsageError, match="cannot be read as a chat template: Is a directory"):
        choose_template(_tokenizer({}), str(tmp_path))
    with pytest.raises(UsageError, match="there is no chat template 'a\\\\x00b'"):
        choose_template(_tokenizer({}), "a\0b")


def test_variables_reach_the_model_s_template_only() -> None:
    tokenizer = _tokenizer({"default": "{{ enable_thinking }} {{ messages[0].content }}"})
    template = choose_template(tokenizer, variables={"enable_thinking": False, "thinkin": 1})
    assert template.render(_TALK).text == "False Hello"
    assert isinstance(template, JinjaTemplate)
    assert template.unused == ("thinkin",)
    assert template.names == ("enable_thinking", "messages")
    with pytest.raises(
        UsageError, match="--template-vars a, b: the built-in template llama3 has no variables"
    ):
        choose_template(tokenizer, "llama3", {"a": 1, "b": 2})


def test_variables_are_not_lost_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllama_worker.root.chat.choice.find_spec", lambda name: None)
    tokenizer = _tokenizer({"default": "<|im_start|>"})
    assert choose_template(tokenizer).name == "chatml"
    for wanted, variables in ((None, {"a": 1}), ("default", {})):
        with pytest.raises(UsageError, match="needs the package jinja2"):
            choose_template(tokenizer, wanted, variables)


def test_fields_of_messages_reach_the_template() -> None:
    source = "{{ messages[0].reasoning_content }} {{ messages[0].thinking }} {{ messages[0].content }}"
    message = Message("assistant", "4", {"reasoning": "2+2", "refusal": None})
    assert JinjaTemplate(source).render([message]).text == "2+2 2+2 4"
    assert JinjaTemplate("{{ messages[0] | length }}").render([message]).text == "5"
