"""Where a prompt comes from: the command line, a file, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from dllama_proto.input_files import MAX_TEXT_BYTES, read_at_most
from dllama_worker.errors import UsageError

__all__ = ["read_prompt"]

#: What stands for standard input, as with cat(1).
_STDIN = "-"


def read_prompt(text: str | None, path: Path | None) -> str | None:
    """Return the prompt: ``text`` itself, or what a file or, for ``-``, standard input holds.

    A line break at the end of a file is not part of the prompt, as with ``$(cat FILE)``. Bytes that are no
    UTF-8 pass the tokenizer as they are. Raises OSError, and UsageError where
    standard input is closed or goes on for ever.
    """
    if text is not None and text != _STDIN:
        return text
    if text is None and path is None:
        return None
    data = _standard_input() if path is None or str(path) == _STDIN else read_at_most(path, MAX_TEXT_BYTES)
    return data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise UsageError("the prompt should come from standard input (-), which is closed")
    data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(f"standard input: expected a prompt of at most {MAX_TEXT_BYTES} bytes, got more")
    return data
