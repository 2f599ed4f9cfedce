"""The tokenizer of a Hugging Face folder: ``tokenizer.json`` and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.byte_level import bytes_of
from dllama_worker.tokenizer.chat_templates import ChatTemplates, folder_templates, named_special_tokens
from dllama_worker.tokenizer.end_tokens import find_end_tokens
from dllama_worker.tokenizer.interface import Vocabulary
from dllama_worker.tokenizer.library import LibraryTokenizer, import_library

__all__ = ["TOKENIZER_FILE", "read_folder"]

TOKENIZER_FILE = "tokenizer.json"
_SPACE = "\u2581"
_MAX_FILE = 256 << 20
_MAX_TOKENS = 1 << 24


def read_folder(folder: Path) -> LibraryTokenizer:
    """Make the tokenizer of a folder. Raises UsageError naming the file and what is wrong with it, OSError."""
    path = folder / TOKENIZER_FILE
    description = _read(path)
    config = _read(folder / "tokenizer_config.json", {})
    generation = _read(folder / "generation_config.json", {})
    special = named_special_tokens(config, _read(folder / "special_tokens_map.json", {}))
    library = import_library()
    try:
        encoder = library.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"{path}: makes no tokenizer: {str(error)[:200]}") from error
    encoder.no_truncation()
    encoder.no_padding()
    size = encoder.get_vocab_size(with_added_tokens=True)
    ids = {token: i for token, i in encoder.get_vocab(with_added_tokens=True).items() if i < _MAX_TOKENS}
    added = _added(path, description)
    is_byte_level = "ByteLevel" in {kind for kind, _ in _parts(description.get("decoder"))}
    pieces = [b""] * max([size, *(i + 1 for i in ids.values())])
    for token, i in ids.items():
        pieces[i] = token.encode() if token in added else _piece(token, is_byte_level=is_byte_level)
    bos = ids.get(special.get("bos_token", ""))
    named = [ids.get(special.get("eos_token", "")), *_generation_ends(generation, len(pieces))]
    vocabulary = Vocabulary(
        tuple(pieces),
        bos,
        bos is not None and _begins_with(encoder, config, bos),
        find_end_tokens(
            (token for token in named if token is not None), {token: ids[token] for token in added}
        ),
        ChatTemplates(folder_templates(folder, config), special),
    )
    return LibraryTokenizer(vocabulary, encoder)


def _piece(token: str, *, is_byte_level: bool) -> bytes:
    if is_byte_level:
        return bytes_of(token)
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.replace(_SPACE, " ").encode()


def _read(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.exists():
        return default
    try:
        if path.stat().st_size > _MAX_FILE:
            raise UsageError(f"{path}: has {path.stat().st_size} bytes, expected at most {_MAX_FILE}")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a tokenizer: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _added(path: Path, description: Mapping[str, Any]) -> set[str]:
    """Return the tokens that stand for themselves."""
    found = description.get("added_tokens") or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UsageError(f"{path}: added_tokens: expected a list of objects")
    return {str(one.get("content")) for one in found}


def _parts(decoder: Any) -> Iterator[tuple[str, Any]]:
    """Yield the kinds of a decoder and of those in it."""
    if isinstance(decoder, dict):
        yield str(decoder.get("type")), decoder
        for part in decoder.get("decoders") or ():
            yield from _parts(part)


def _begins_with(encoder: Any, config: Mapping[str, Any], bos: int) -> bool:
    """Tell whether texts begin so: the configuration says it, or what the tokenizer does to a text."""
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"])
    return bool(encoder.encode("a", add_special_tokens=True).ids[:1] == [bos])


def _generation_ends(generation: Mapping[str, Any], n_tokens: int) -> list[int]:
    ends = generation.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    return [end for end in listed if type(end) is int and 0 <= end < n_tokens]
