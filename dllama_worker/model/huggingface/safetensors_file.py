"""Where the tensors of a .safetensors file lie, checked before anything is made of them.

Source: the format's description (README of ``safetensors``): the size of a JSON object, the object, the data. Read
here rather than by the library, whose NumPy side has no BF16, which most models are stored in, and holds no map to
slice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dllama_ops.quantization.ggml_types import GgmlType
from dllama_worker.errors import UsageError
from dllama_worker.model.mapped_file import MappedFile

__all__ = ["SafeTensor", "read_safetensors"]

_SIZE_BYTES = 8
#: The format's own limit.
_MAX_HEADER = 100_000_000
_MAX_DIMS = 8

#: The types that weights are made of, as the same numbers are called in a GGUF file.
_TYPES = MappingProxyType({"F32": GgmlType.F32, "F16": GgmlType.F16, "BF16": GgmlType.BF16})


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """A tensor of a file. ``ggml_type`` is None for numbers of another type than F32, F16 and BF16."""

    file: MappedFile
    name: str
    dtype: str
    ggml_type: GgmlType | None
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def read_safetensors(path: Path) -> Iterator[SafeTensor]:
    """Yield what a file holds. Raises UsageError naming the file, the tensor and what is wrong; OSError."""
    file = MappedFile(path)
    data = file.view
    size = int.from_bytes(data[:_SIZE_BYTES], "little")
    if len(data) < _SIZE_BYTES or not 2 <= size <= min(_MAX_HEADER, len(data) - _SIZE_BYTES):
        raise UsageError(
            f"{path}: is no safetensors file, or is truncated: its header would have {size} bytes of "
            f"{max(0, len(data) - _SIZE_BYTES)}"
        )
    try:
        header = json.loads(bytes(data[_SIZE_BYTES : _SIZE_BYTES + size]))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise UsageError(f"{path}: its header is no JSON object")
    start, end = _SIZE_BYTES + size, 0
    placed = [_tensor(file, name, value, start) for name, value in header.items() if name != "__metadata__"]
    for tensor in sorted(placed, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise UsageError(f"{path}: tensor {tensor.name!r} overlaps another: the file is damaged")
        end = tensor.offset + tensor.n_bytes
        yield tensor


def _tensor(file: MappedFile, name: str, value: Any, start: int) -> SafeTensor:
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise _damaged(file, name, "expected dtype, shape and data_offsets") from error
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if not isinstance(dtype, str) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise _damaged(file, name, "expected dtype, shape and data_offsets")
    left = file.data.nbytes - start
    if not begin <= end <= left or len(shape) > _MAX_DIMS:
        raise _damaged(
            file,
            name,
            f"its bytes {begin} to {end} are not among the {left} of the file's data; is it truncated?",
        )
    ggml_type = _TYPES.get(dtype)
    n_values = 1
    for n in shape:
        n_values *= n
    if ggml_type is not None and n_values * ggml_type.block_bytes != end - begin:
        raise _damaged(file, name, f"has {end - begin} bytes, expected {n_values * ggml_type.block_bytes}")
    return SafeTensor(file, name, dtype, ggml_type, tuple(shape), start + begin, end - begin)


def _damaged(file: MappedFile, name: str, what: str) -> UsageError:
    return UsageError(f"{file.path}: tensor {name[:80]!r}: {what}")
