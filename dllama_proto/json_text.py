r"""The one writer of JSON text: what it writes can be encoded as UTF-8, printed, and read by any JSON parser.

Strings may come from the wire. A byte there that is no UTF-8 is kept as a lone surrogate, which JSON text must
not hold (RFC 8259, section 8.2; RFC 7493, section 2.1): it is written as the six characters ``\udcff``, as
:func:`dllama_proto.printable.printable` shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

__all__ = ["json_text"]

#: All but printable ASCII, and the line breaks that indentation puts between values.
_SPECIAL = re.compile(r"[^\n -~]")


def json_text(
    value: Any,
    *,
    ascii_only: bool = True,
    compact: bool = False,
    indent: int | None = None,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """Return a value as JSON text, in one line unless ``indent`` (in spaces) is given.

    ``ascii_only`` False leaves printable letters as they are; all others become JSON escapes. ``compact`` leaves
    out the spaces between values. ``default`` gives a value that JSON has for one that it has not.

    Raises ValueError for NaN and infinities, and TypeError for what is no JSON value.
    """
    text = json.dumps(
        value,
        allow_nan=False,
        ensure_ascii=False,
        separators=(",", ":") if compact else None,
        indent=indent,
        default=default,
    )
    # Characters of this kind stand in strings only: json.dumps itself writes nothing but ASCII around them.
    return _SPECIAL.sub(_escaped if ascii_only else _escaped_unless_printable, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xD800 <= code <= 0xDFFF:
        # The backslash is a character of the string, and so escaped itself.
        return f"\\\\u{code:04x}"
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _escaped_unless_printable(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else _escaped(match)
