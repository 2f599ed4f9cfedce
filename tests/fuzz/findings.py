"""The inputs that once broke something: files of ``corpus``, named by what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CORPUS", "LATEST", "keep", "paths", "saved"]

CORPUS = Path(__file__).with_name("corpus")

#: What the binder was last told: if native code ends the process, this is why.
LATEST = CORPUS.with_name("latest.bin")


def keep(said: bytes) -> Path:
    """Save an input and return where."""
    path = CORPUS / f"{hashlib.sha256(said).hexdigest()[:16]}.bin"
    path.write_bytes(said)
    return path


def paths() -> list[Path]:
    """Return all of them in order."""
    return sorted(CORPUS.glob("*.bin"))


def saved() -> Iterator[bytes]:
    """Yield what is in all of them."""
    for path in paths():
        yield path.read_bytes()
