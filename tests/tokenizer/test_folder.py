"""A folder's tokenizer gives its own tokens, and what stands beside it is believed only where it can be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.opening import load_tokenizer
from tests.helpers.tiny_models import TINY_MODELS

pytest.importorskip("tokenizers")

_RECORDED = json.loads((TINY_MODELS / "tiny-tokens.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(TINY_MODELS / "tiny-tokenizer.json", tmp_path / "tokenizer.json")
    return tmp_path


def _beside(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_texts_have_the_model_s_tokens(folder: Path, name: str) -> None:
    tokenizer = load_tokenizer(folder / name)
    for text, tokens in _RECORDED.items():
        assert tokenizer.encode(text) == tokens
        pieces = b"".join(tokenizer.vocabulary.pieces[token] for token in tokens)
        assert pieces.decode() == text


def test_what_stands_beside_says_how_texts_begin_and_end(folder: Path) -> None:
    config = {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "chat_template": "old"}
    _beside(folder, "tokenizer_config.json", config | {"add_bos_token": True})
    _beside(folder, "generation_config.json", {"eos_token_id": [498, 9999, "x"]})
    vocabulary = load_tokenizer(folder).vocabulary
    assert (vocabulary.bos_id, vocabulary.add_bos) == (496, True)
    assert vocabulary.eos_ids == (497, 498, 495)
    assert vocabulary.templates.default == "old"
    (folder / "chat_template.jinja").write_text("new")
    assert load_tokenizer(folder).vocabulary.templates.default == "new"
    _beside(folder, "tokenizer_config.json", config)
    assert not load_tokenizer(folder).vocabulary.add_bos  # nothing puts it there


def test_of_many_templates_the_default_is_taken(folder: Path) -> None:
    templates = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    _beside(folder, "tokenizer_config.json", {"chat_template": templates})
    assert load_tokenizer(folder).vocabulary.templates.default == "b"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'),
        ("tokenizer.json", "[" * 100_000),
        ("tokenizer_config.json", "nonsense"),
        ("generation_config.json", "[1]"),
    ],
)
def test_a_file_that_is_none_is_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(UsageError, match=name.replace(".", r"\.")):
        load_tokenizer(folder)
