"""The letters by which byte-level vocabularies spell bytes (GPT-2's ``bytes_to_unicode``)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["bytes_of"]


def _table() -> dict[str, int]:
    """Map each letter to its byte: printable Latin-1 is itself, what is left takes the letters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES: Mapping[str, int] = MappingProxyType(_table())


def bytes_of(token: str) -> bytes:
    """Return what a token of a byte-level vocabulary stands for; one with other letters stands for itself."""
    try:
        return bytes(_BYTES[letter] for letter in token)
    except KeyError:
        return token.encode("utf-8", "surrogateescape")
