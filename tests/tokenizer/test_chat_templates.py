"""The templates and special tokens of a model are found where its files have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.chat_templates import (
    ChatTemplates,
    folder_templates,
    gguf_templates,
    named_special_tokens,
)

_TOKENS = ["<s>", "</s>", "<unk>"]


def test_files_come_before_the_configuration(tmp_path: Path) -> None:
    config = {"chat_template": "of the configuration"}
    assert folder_templates(tmp_path, config) == {"default": "of the configuration"}
    more = tmp_path / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("for tools")
    (more / "notes.txt").write_text("no template")
    assert folder_templates(tmp_path, config) == {"tool_use": "for tools"}
    (tmp_path / "chat_template.jinja").write_bytes("é\udcff".encode("utf-8", "surrogateescape"))
    assert folder_templates(tmp_path, config) == {"default": "é\ufffd", "tool_use": "for tools"}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, {}),
        ("", {}),
        (3, {}),
        (
            [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}],
            {"default": "a", "rag": "b"},
        ),
        ([{"name": 1, "template": "a"}, {"name": "x"}, {"name": "y", "template": ""}, "z", None], {}),
    ],
)
def test_a_configuration_has_one_template_or_a_list(
    tmp_path: Path, stored: Any, expected: dict[str, str]
) -> None:
    assert folder_templates(tmp_path, json.loads(json.dumps({"chat_template": stored}))) == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").mkdir()
    with pytest.raises(
        UsageError, match=r"chat_template.jinja: cannot be read as a chat template: Is a dir"
    ):
        folder_templates(tmp_path, {})


def test_a_gguf_file_has_templates_by_name() -> None:
    key = "tokenizer.chat_template"
    metadata = {key: "d", f"{key}.rag": "r", f"{key}.hidden": "h", f"{key}s": ["rag", "missing"]}
    found = gguf_templates(Path("m.gguf"), metadata, _TOKENS)
    assert found.sources == {"default": "d", "rag": "r"}
    assert found.default == "d"
    assert gguf_templates(Path("m.gguf"), {}, _TOKENS) == ChatTemplates()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tokenizer.chat_template": 3}, "m.gguf: tokenizer.chat_template: expected a text, got 3"),
        ({"tokenizer.chat_templates": "rag"}, "m.gguf: tokenizer.chat_templates: expected a list of names"),
        (
            {"tokenizer.chat_templates": ["rag"], "tokenizer.chat_template.rag": [1]},
            r"m.gguf: tokenizer.chat_template.rag: expected a text, got \[1\]",
        ),
    ],
)
def test_templates_that_are_no_texts_are_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        gguf_templates(Path("m.gguf"), changed, _TOKENS)


def test_special_tokens_of_a_gguf_file_are_those_that_its_vocabulary_has() -> None:
    ids = {"bos": 0, "eos": 1, "unknown": 2, "padding": 3, "seperator": -1, "cls": True, "mask": "1"}
    metadata = {f"tokenizer.ggml.{name}_token_id": i for name, i in ids.items()}
    found = gguf_templates(Path("m.gguf"), metadata, _TOKENS).special_tokens
    assert found == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def test_special_tokens_of_a_folder_are_named_in_several_ways() -> None:
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "eos_token": "</s>",
        "pad_token": None,
        "add_bos_token": True,
        "image_token": "<image>",
        "extra_special_tokens": {"audio": "<audio>"},
    }
    legacy = {"eos_token": {"content": "<end>"}, "unk_token": "<unk>", "additional_special_tokens": ["<x>"]}
    expected = {"bos_token": "<s>", "eos_token": "<end>", "unk_token": "<unk>", "image_token": "<image>"}
    assert named_special_tokens(config, legacy) == {**expected, "audio": "<audio>"}
    newer = named_special_tokens(config | {"added_tokens_decoder": {}}, legacy)
    assert newer == {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>", "audio": "<audio>"}
