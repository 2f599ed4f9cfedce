"""Opens a model, whatever it is stored as: which format a file is of, and who reads it."""

from __future__ import annotations

from pathlib import Path

from dllama_proto.input_files import open_regular
from dllama_worker.errors import UsageError
from dllama_worker.model.m_file import open_m_file
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.source import ModelSource

__all__ = ["CONFIG_FILE", "open_model"]

_GGUF = b"GGUF"

#: What makes a folder a model of Hugging Face's transformers.
CONFIG_FILE = "config.json"


def open_model(path: Path, options: OpenOptions | None = None) -> ModelSource:
    """Open a model.

    Raises UsageError naming the file and what is wrong with it: that it cannot be read, or is no model of a kind
    that this program knows.
    """
    options = options or OpenOptions()
    try:
        if (path / CONFIG_FILE).is_file():
            from dllama_worker.model.huggingface.source import open_folder

            return open_folder(path, options)
        with open_regular(path) as file:
            head = file.read(len(_GGUF))
        if head == _GGUF:
            from dllama_worker.model.gguf.source import open_gguf

            return open_gguf(path, options)
        return open_m_file(path, options.max_seq_len)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a model: {error.strerror or error}") from error
