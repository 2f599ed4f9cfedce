"""Opens a .m file through a memory map: tensors are views of it, so nothing is read before it is used."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dllama_proto.errors import ProtocolError
from dllama_proto.floats import storage_dtype
from dllama_proto.input_files import open_regular
from dllama_proto.model_file import (
    TensorEntry,
    check_file_size,
    read_model_header,
    tensor_entries,
)
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError

__all__ = ["ModelFile", "open_model"]

_Key = tuple[str, int, int | None]


class ModelFile:
    """An open model: its ``header``, its ``tensors`` by (name, layer, expert), and their numbers.

    The map lasts as long as this object or any view of it does. Made by :func:`open_model`.
    """

    def __init__(
        self,
        path: Path,
        header: ModelHeader,
        data: np.ndarray[Any, np.dtype[np.uint8]],
        mapping: mmap.mmap,
    ) -> None:
        self.path = path
        self.header = header
        self.tensors: Mapping[_Key, TensorEntry] = MappingProxyType(
            {(entry.name, entry.layer, entry.expert): entry for entry in tensor_entries(header)}
        )
        self._data = data
        self._map = mapping

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return self._data.nbytes

    def units(self, entry: TensorEntry) -> np.ndarray[Any, np.dtype[Any]]:
        """View a tensor as (d, n) numbers, or (d, n / 32) blocks where it is stored in blocks.

        Read-only, and not aligned where what precedes the tensor in the file has an odd length.
        """
        stored = self._data[entry.offset : entry.offset + entry.n_bytes]
        return stored.view(storage_dtype(entry.float_type)).reshape(entry.d, -1)

    def release(self, entry: TensorEntry, rows: range) -> None:
        """Let the system take back the memory through which rows of a tensor were read.

        Its numbers stay readable, from the file again. Without this a root that streams a model through the
        map seems to hold all of it.
        """
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        row_bytes = entry.n_bytes // entry.d
        start = -(-(entry.offset + rows.start * row_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (entry.offset + rows.stop * row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, start, length)


def open_model(path: Path, max_seq_len: int = 0) -> ModelFile:
    """Open a model file, its context cut to ``max_seq_len`` where that is given.

    Raises UsageError naming the file and what is wrong with it: that it cannot be read, the field of the
    header, or the tensor at which it ends too early.
    """
    try:
        with open_regular(path) as file:
            header = read_model_header(file)
        check_file_size(header, path.stat().st_size)
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a model: {error.strerror or error}") from error
    except ProtocolError as error:
        raise UsageError(f"{path}: {error}") from error
    data = np.frombuffer(mapping, dtype=np.uint8)
    return ModelFile(path, header.with_max_seq_len(max_seq_len), data, mapping)
