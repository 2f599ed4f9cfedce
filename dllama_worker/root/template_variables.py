"""What ``--template-vars`` says: variables for the model's chat template, read and checked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

__all__ = ["RESERVED_NAMES", "merge_variables", "template_variables"]

_EXAMPLE = (
    'expected NAME=VALUE or a JSON object, such as enable_thinking=false or {"enable_thinking": false}'
)

#: What templates are given anyway, by whom; it would contradict the conversation or the model's files.
RESERVED_NAMES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("messages", "add_generation_prompt"), "is the conversation's")
    | dict.fromkeys(
        ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        "is the model's",
    )
    | dict.fromkeys(
        (
            "cycler", "dict", "joiner", "lipsum", "namespace", "raise_exception", "range", "strftime_now"
        ),
        "is what all templates have",
    )
)  # fmt: skip

#: Variables that are lists of objects, as in transformers.
_LISTS = ("tools", "documents")

#: What people write for these in other languages: as a text it would count as true.
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "none": "null"}


def template_variables(text: str) -> dict[str, Any]:
    """Return variables by their names, of ``NAME=VALUE`` or a JSON object.

    A value is JSON where it can be read so, else a text. Raises ArgumentTypeError saying what was expected.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"expected UTF-8: {error}") from error
    name, separator, value = text.partition("=")
    if separator and not text.lstrip().startswith("{"):
        found: Any = {name.strip(): _value(value)}
    else:
        try:
            found = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"{_EXAMPLE}: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{_EXAMPLE}, got {text[:60]}")
    for name, value in found.items():
        _check(name, value)
    return found


def merge_variables(given: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the variables of several flags; of one that is given twice the last."""
    return {name: value for variables in given for name, value in variables.items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        pass
    meant = _CONSTANTS.get(text.strip().lower())
    if meant is not None:
        raise argparse.ArgumentTypeError(
            f"expected {meant}, got {text}: a text counts as true in a template"
        )
    return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"expected a number of JSON, got {name}")


def _check(name: str, value: Any) -> None:
    if not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{name[:60]!r} is no name of a variable: {_EXAMPLE}")
    if name in RESERVED_NAMES:
        raise argparse.ArgumentTypeError(f"{name} {RESERVED_NAMES[name]}, and can't be set: leave it out")
    is_list = isinstance(value, list) and all(isinstance(one, dict) for one in value)
    if name in _LISTS and value is not None and not is_list:
        raise argparse.ArgumentTypeError(f"{name}: expected a list of JSON objects, got {str(value)[:60]}")
