"""Flags from a file: each key of a TOML file is a flag without its dashes, and the command line overrides it.

    host = "0.0.0.0"
    nthreads = 4
    log-format = "json"

A switch is ``true`` or ``false``, a flag with several values takes a list. Whatever flags the command has, the
file has.
"""

from __future__ import annotations

import argparse
import reprlib
import tomllib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dllama_proto.exit_codes import ExitCode
from dllama_proto.input_files import read_at_most

__all__ = ["parse_arguments"]

#: The flag that names the file; the one that a file cannot have.
_FLAG = "config"

#: A line a flag is a few thousand; of what is longer TOML's parser can make minutes of work.
_MAX_BYTES = 1 << 14


def parse_arguments(
    make_parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse a command line whose ``--config FILE`` may name a file of defaults.

    Leaves with a usage error, as argparse does, where the command line or the file is wrong: the file, the key,
    and for a key that doesn't exist the nearest that does.
    """
    parser = make_parser()
    arguments = parser.parse_args(argv)
    path: Path | None = getattr(arguments, _FLAG)
    if path is None:
        return arguments
    try:
        from_file = _read(path, make_parser())
    except _WrongFile as error:
        parser.error(f"{path}: {error}")
    return argparse.Namespace(**{**vars(arguments), **from_file, **_given(make_parser(), argv)})


class _WrongFile(Exception):
    """What is wrong with a file."""

    exit_code = ExitCode.CALLER


def _given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """Return what the command line says itself, without defaults."""
    parser.set_defaults(**dict.fromkeys(_names(parser)))
    said = vars(parser.parse_args(argv))
    return {name: value for name, value in said.items() if value is not None}


def _names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the names of all flags, as attributes."""
    return list(vars(parser.parse_args([])))


def _read(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    try:
        settings = tomllib.loads(read_at_most(path, _MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise _WrongFile(f"cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _WrongFile(f"is not TOML: {error}") from error
    except RecursionError as error:
        raise _WrongFile("is nested too deeply: expected a flag in each line") from error
    parser.exit_on_error = False
    known = {name.replace("_", "-"): name for name in _names(parser) if name != _FLAG}
    values = {}
    for key, value in settings.items():
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0)
            raise _WrongFile(f"unknown key {key!r}, the nearest is {near[0]!r}")
        words = _words(key, value)
        if not words:
            continue  # a switch that is off
        try:
            values[known[key]] = getattr(parser.parse_args(words), known[key])
        except argparse.ArgumentError as error:
            raise _WrongFile(f"{key}: {error.message}") from error
    return values


def _words(key: str, value: object) -> list[str]:
    """Return a setting as a command line would have it."""
    flag = f"--{key}"
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, str | int | float):
        return [f"{flag}={_argument(key, value)}"]
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        words = [_argument(key, item) for item in value]
        if any(word.startswith("-") for word in words):
            raise _WrongFile(f"{key}: expected values, got a flag among {value!r}")
        return [flag, *words]
    raise _WrongFile(f"{key}: expected a value or a list of values, got {reprlib.repr(value)}")


def _argument(key: str, value: str | float) -> str:
    """Return a value as a command line would have it, which holds no NUL."""
    word = str(value)
    if "\0" in word:
        raise _WrongFile(f"{key}: expected text without NUL, got {value!r}")
    return word
