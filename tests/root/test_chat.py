"""Conversations: the built-in forms, the model's own template, and where a reply ends."""

from __future__ import annotations

import json

import pytest

from dllama_proto.tokenizer_file import TokenizerFile
from dllama_worker.errors import UsageError
from dllama_worker.root.chat import EosDetector, EosState, Message, choose_template
from dllama_worker.root.chat.forms import FORMS, BuiltInTemplate, recognise_form
from dllama_worker.root.chat.jinja import JinjaTemplate
from dllama_worker.tokenizer.greedy import GreedyTokenizer
from tests.helpers.captures import GOLDEN

_RECORDED = json.loads((GOLDEN.parent / "tokenizer" / "chat.json").read_text(encoding="utf-8"))

_LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_TALK = [Message("system", "Be brief."), Message("user", "Hello")]


def _tokenizer(chat_template: str = "", *, add_bos: bool = True) -> GreedyTokenizer:
    pieces = [b"a", b"<|begin_of_text|>", b"<|eot_id|>", b"<|end_of_text|>"]
    return GreedyTokenizer(
        TokenizerFile.of(
            pieces,
            [0.0] * 4,
            bos_id=1,
            eos_ids=[2, 3],
            add_bos=add_bos,
            chat_template=chat_template.encode(),
        )
    )


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_as_recorded(form: str) -> None:
    cases = [case for case in _RECORDED["templates"] if case["form"] == form]
    assert len(cases) == 16
    for case in cases:
        messages = [Message(role, content) for role, content in case["messages"]]
        prompt = BuiltInTemplate(form, "</s>").render(messages, reply=case["reply"])
        expected = case["text"]
        if form == "chatml" and case["reply"]:
            # C++ invites the assistant after every message; we do after the last one.
            invitation = "<|im_start|>assistant\n"
            expected = expected.replace(f"<|im_end|>\n{invitation}", "<|im_end|>\n") + invitation
        assert (prompt.text, prompt.shown) == (expected, case["shown"]), case


def test_a_models_template_is_recognised_by_what_c_plus_plus_looks_for() -> None:
    assert recognise_form("… [INST] … <|im_start|>") == "llama2"
    assert recognise_form(_LLAMA3) == "llama3"
    assert recognise_form("<｜Assistant｜>") == "deepSeek3"  # noqa: RUF001
    assert recognise_form("<|im_start|>") == "chatml"
    assert recognise_form("<|Assistant|>") is None


def test_the_models_own_template_comes_first() -> None:
    template = choose_template(_tokenizer(_LLAMA3))
    assert template.name == "the model's own"
    expected = BuiltInTemplate("llama3", "<|eot_id|>").render(_TALK)
    assert template.render(_TALK) == expected
    # The beginning token is the tokenizer's to add; a model that has it only in its template keeps it.
    bare = choose_template(_tokenizer(_LLAMA3, add_bos=False))
    assert bare.render(_TALK).text == "<|begin_of_text|>" + expected.text


def test_a_form_that_was_asked_for_comes_before_the_models_own() -> None:
    template = choose_template(_tokenizer(_LLAMA3), "chatml")
    assert template.name == "chatml"
    assert template.render(_TALK).text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert choose_template(_tokenizer(), "llama3").render(_TALK).text.count("<|eot_id|>") == 2


def test_what_templates_of_models_use_is_there() -> None:
    source = (
        "{%- for m in messages %}\n"
        "    {%- if m.role == 'system' %}{% continue %}{% endif %}\n"
        "    {{- m | tojson }}\n"
        "{%- endfor %}\n"
        "{{- strftime_now('%%') }}{{ eos_token }}"
    )
    text = JinjaTemplate(source, {"eos_token": "</s>"}).render([*_TALK, Message("user", "<é>")]).text
    assert text == '{"role": "user", "content": "Hello"}{"role": "user", "content": "<é>"}%</s>'


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "template is broken"),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{{ messages[9].content }}", "fails on this conversation"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_a_template_that_fails_points_at_the_built_in_forms(source: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s){reason}.*--chat-template"):
        JinjaTemplate(source).render(_TALK)


def test_without_a_template_the_forms_are_named() -> None:
    with pytest.raises(UsageError, match="choose one of llama2, llama3, deepSeek3, chatml"):
        choose_template(_tokenizer())
    with pytest.raises(UsageError, match="no chat template 'llama4'"):
        choose_template(_tokenizer(), "llama4")


def test_without_jinja_the_form_that_the_template_looks_like_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dllama_worker.root.chat.choice.find_spec", lambda name: None)
    assert choose_template(_tokenizer(_LLAMA3)).name == "llama3"
    with pytest.raises(UsageError, match="needs the package jinja2"):
        choose_template(_tokenizer("{{ messages }}"))


def test_ends_are_found_as_recorded() -> None:
    assert len(_RECORDED["eos"]) > 100
    for case in _RECORDED["eos"]:
        stops = [(token, text.encode()) for token, text in case["stops"]]
        detector = EosDetector(stops, *case["padding"])
        for token, piece, state, delta in case["steps"]:
            got = detector.append(token, bytes.fromhex(piece) if piece is not None else None)
            assert got == state, case
            if got is not EosState.MAYBE_EOS:
                text = detector.delta()
                assert (text.hex() if text else None) == delta, case
                detector.reset()


def test_a_reply_ends_where_its_end_token_is_spelled_out() -> None:
    detector = EosDetector.of(_tokenizer().vocabulary)
    assert detector.append(0, b"Hi!") is EosState.NOT_EOS
    assert detector.delta() == b"Hi!"
    detector.reset()
    assert detector.append(0, b" <|eo") is EosState.MAYBE_EOS
    assert detector.append(0, b"t_id|>") is EosState.EOS
    assert detector.delta() == b" "


def test_what_was_kept_back_is_still_there_when_it_was_no_end() -> None:
    detector = EosDetector.of(_tokenizer().vocabulary)
    assert detector.append(0, b"a <|e") is EosState.MAYBE_EOS
    assert detector.delta() == b"a <|e"
    assert detector.append(0, b"lse|> entirely different") is EosState.NOT_EOS
    assert detector.delta() == b"a <|else|> entirely different"


def test_an_end_token_ends_without_any_text() -> None:
    detector = EosDetector.of(_tokenizer().vocabulary)
    assert detector.append(3, None) is EosState.EOS
    assert detector.delta() is None
