"""``--template-vars``: what can be said, and what is refused."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from dllama_worker.root.flags import make_parser, options_of
from dllama_worker.root.template_variables import RESERVED_NAMES, template_variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("enable_thinking=false", {"enable_thinking": False}),
        ("effort=high", {"effort": "high"}),
        ("effort=", {"effort": ""}),
        ('effort="true"', {"effort": "true"}),
        ("budget=512", {"budget": 512}),
        ("equation=a=b", {"equation": "a=b"}),
        ("x=null", {"x": None}),
        ('tools=[{"name": "f"}]', {"tools": [{"name": "f"}]}),
        ('{"a": 1, "é": "x=y"}', {"a": 1, "é": "x=y"}),
        (' {"documents": null}', {"documents": None}),
        ("x=NaN", {"x": "NaN"}),
        ("{}", {}),
    ],
)
def test_variables_are_named_values_or_an_object(text: str, expected: dict[str, Any]) -> None:
    assert template_variables(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("enable_thinking", "expected NAME=VALUE or a JSON object, such as"),
        ("[1]", r"expected NAME=VALUE or a JSON object, .*, got \[1\]"),
        ('{"x": NaN}', "expected a number of JSON, got NaN"),
        ("x=\udcff", "expected UTF-8"),
        ("{", "expected NAME=VALUE or a JSON object, such as"),
        ('{"a":' * 100_000, "expected NAME=VALUE or a JSON object, such as"),
        ("enable_thinking=False", "expected false, got False: a text counts as true"),
        ("x=None", "expected null, got None"),
        ("two words=1", "'two words' is no name of a variable"),
        ("=1", "'' is no name of a variable"),
        ("tools=3", "tools: expected a list of JSON objects, got 3"),
        ('{"documents": ["x"]}', "documents: expected a list of JSON objects"),
        ("messages=[]", "messages is the conversation's, and can't be set"),
        ('{"bos_token": "<s>"}', "bos_token is the model's, and can't be set"),
        ("range=3", "range is what all templates have, and can't be set"),
    ],
)
def test_what_cannot_be_a_variable_is_refused(text: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        template_variables(text)


def test_everything_that_templates_are_given_is_reserved() -> None:
    pytest.importorskip("jinja2")
    from jinja2.defaults import DEFAULT_NAMESPACE

    assert set(DEFAULT_NAMESPACE) <= set(RESERVED_NAMES)


def test_of_several_flags_the_last_counts() -> None:
    parser = make_parser()
    flags = ("--template-vars", "a=1", "--template-vars", '{"a": 2, "b": 3}')
    options = options_of(parser, parser.parse_args(["chat", *flags]))
    assert options.template_variables == {"a": 2, "b": 3}
    assert options_of(parser, parser.parse_args(["chat"])).template_variables == {}
