"""Opens a tokenizer, whatever file it is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dllama_proto.errors import ProtocolError
from dllama_proto.input_files import open_regular
from dllama_proto.tokenizer_file import read_tokenizer
from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.families import needs_library, tokenizer_of
from dllama_worker.tokenizer.folder import TOKENIZER_FILE, read_folder
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["load_tokenizer"]


def load_tokenizer(
    path: Path, *, cpp_tokens: bool = False, warn: Callable[[str], None] | None = None
) -> Tokenizer:
    """Read a .t file, a ``tokenizer.json`` or the folder that it is in.

    With ``cpp_tokens`` a .t file gives the C++ program's tokens, also where its model has others; so it does, and
    ``warn`` is told, where the library for its own isn't installed. Raises
    UsageError naming the file and what is wrong with it.
    """
    if path.name == TOKENIZER_FILE:
        return read_folder(path.parent)
    if (path / TOKENIZER_FILE).is_file():
        return read_folder(path)
    try:
        with open_regular(path) as file:
            found = read_tokenizer(file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a tokenizer: {error.strerror or error}") from error
    except ProtocolError as error:
        raise UsageError(f"{path}: {error}") from error
    if not cpp_tokens and needs_library(found):
        cpp_tokens = True
        if warn is not None:
            warn(
                f"{path}: without the package tokenizers texts get the C++ program's tokens, some of which its "
                "model was not trained with: pip install 'dllama-worker[models]', or say so with --cpp-tokens"
            )
    return tokenizer_of(found, cpp_tokens=cpp_tokens)
