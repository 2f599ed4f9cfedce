"""The help texts that the documentation quotes, taken from the parsers.

``python -m tests.helpers.quoted_help`` writes them anew. A quote stands between
``<!-- help: COMMAND -->`` and the end of the block of code after it. How usage lines are folded differs between
versions of Python, so they are left out.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from dllama_worker.certificates import cli as certificates
from dllama_worker.doctor import cli as doctor
from dllama_worker.tunnel import cli as tunnel
from dllama_worker.worker import flags

__all__ = ["PAGES", "with_help"]

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))

_PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "dllama-worker": flags.make_parser,
    "dllama-worker certificates": certificates.make_parser,
    "dllama-worker doctor": doctor.make_parser,
    "dllama-worker tunnel": tunnel.make_parser,
}
_QUOTE = re.compile(r"(<!-- help: (.+?) -->\n+```text\n).*?(^```$)", re.M | re.S)


def with_help(text: str) -> str:
    """Return a page with every quoted help text as it is now."""
    return _QUOTE.sub(lambda found: f"{found[1]}{_help(found[2])}{found[3]}", text)


def _help(command: str) -> str:
    with patch.dict(os.environ, {"COLUMNS": "110", "NO_COLOR": "1"}):
        _, _, text = _PARSERS[command]().format_help().partition("\n\n")
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_help(page.read_text()))
