"""Opens a .m file through a memory map: tensors are views of it, so nothing is read before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dllama_proto.errors import ProtocolError
from dllama_proto.floats import storage_dtype
from dllama_proto.input_files import open_regular
from dllama_proto.model_file import TensorEntry, check_file_size, read_model_header
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.model.mapped_file import MappedFile
from dllama_worker.model.source import ModelSource

__all__ = ["ModelFile", "open_m_file"]


class ModelFile(ModelSource):
    """An open .m file. Made by :func:`open_m_file`."""

    kind = ".m file"

    def __init__(self, file: MappedFile, header: ModelHeader) -> None:
        super().__init__(file.path, header)
        self._file = file

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return self._file.data.nbytes

    def rows(self, entry: TensorEntry, rows: range) -> np.ndarray[Any, np.dtype[Any]]:
        """View rows of a tensor; not aligned where what precedes the tensor in the file has an odd length."""
        start, stop = _extent(entry, rows)
        return self._file.data[start:stop].view(storage_dtype(entry.float_type)).reshape(len(rows), -1)

    def release(self, entry: TensorEntry, rows: range) -> None:
        """Let the system take back the memory through which these rows were read."""
        self._file.release(*_extent(entry, rows))


def open_m_file(path: Path, max_seq_len: int = 0) -> ModelFile:
    """Open a .m file, its context cut to ``max_seq_len`` where that is given.

    Raises UsageError naming the file and what is wrong with it: the field of the header, or the tensor at which
    it ends too early; OSError.
    """
    try:
        with open_regular(path) as file:
            header = read_model_header(file)
        check_file_size(header, path.stat().st_size)
    except ProtocolError as error:
        raise UsageError(f"{path}: {error}") from error
    return ModelFile(MappedFile(path), header.with_max_seq_len(max_seq_len))


def _extent(entry: TensorEntry, rows: range) -> tuple[int, int]:
    row_bytes = entry.n_bytes // entry.d
    return entry.offset + rows.start * row_bytes, entry.offset + rows.stop * row_bytes
