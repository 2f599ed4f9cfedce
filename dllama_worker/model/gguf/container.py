"""A GGUF file's metadata and where its tensors lie, checked before anything is made of them.

Source: the format's description (``docs/gguf.md`` of ggml), versions 2 and 3. A file is a header with metadata
(key, type, value), then what its tensors are (name, dimensions, type, offset), then their data. Every length is
held against what is left of the file before it is used; nothing here reads a tensor.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from dllama_ops.quantization.ggml_types import GgmlType
from dllama_proto.bounded_text import quoted
from dllama_worker.errors import UsageError
from dllama_worker.model.mapped_file import MappedFile

__all__ = ["GgufContainer", "GgufTensor", "read_container"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32

#: More than any real file has; what claims more is damaged.
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 20
_MAX_DIMS = 4
_MAX_NAME = 1 << 16
_MAX_NESTING = 4

_STRING, _ARRAY, _BOOL = 8, 9, 7
#: The types of metadata that are numbers, by their numbers.
_NUMBERS: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        code: np.dtype(name)
        for code, name in enumerate(("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "u1"))
    }
    | {10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8")}
)
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of a file: its dimensions, the contiguous one (a row's values) first, and its bytes' place."""

    name: str
    dims: tuple[int, ...]
    ggml_type: GgmlType
    offset: int
    n_bytes: int

    @property
    def n_values(self) -> int:
        """How many numbers it has."""
        product = 1
        for dim in self.dims:
            product *= dim
        return product


@dataclass(frozen=True, slots=True)
class GgufContainer:
    """What a file holds: ``metadata`` as numbers, booleans, strings and lists of them; ``tensors`` by name.

    Strings that are not UTF-8 have their odd bytes as surrogates.
    """

    file: MappedFile
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_container(file: MappedFile) -> GgufContainer:
    """Read everything but the tensors. Raises UsageError naming the file, the place, what is wrong there."""
    reader = _GgufReader(file)
    if file.data[:4].tobytes() != _MAGIC:
        reader.fail("the magic number", "GGUF", repr(file.data[:4].tobytes()))
    reader.at = 4
    version = reader.u32("the version")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        hint = " (of a big-endian machine)" if swapped in _VERSIONS else ""
        reader.fail("the version", "2 or 3", f"{swapped if hint else version}{hint}")
    n_tensors = reader.count("the number of tensors", _MAX_TENSORS)
    n_keys = reader.count("the number of metadata keys", _MAX_KEYS)
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = reader.string("a metadata key", _MAX_NAME)
        if key in metadata:
            reader.fail("the metadata", "each key once", f"{quoted(key)} twice")
        metadata[key] = reader.value(f"metadata {quoted(key)}", reader.u32(f"the type of {quoted(key)}"))
    infos = [_tensor_info(reader) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment % 8:
        reader.fail("general.alignment", "a multiple of 8", str(alignment)[:40])
    start = -(-reader.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, dims, ggml_type, offset in infos:
        if name in tensors:
            reader.fail("the tensors", "each name once", f"{quoted(name)} twice")
        tensors[name] = _placed(reader, GgufTensor(name, dims, ggml_type, start + offset, 0))
    _check_overlaps(reader, tensors)
    return GgufContainer(file, MappingProxyType(metadata), MappingProxyType(tensors))


_Info = tuple[str, tuple[int, ...], GgmlType, int]


def _tensor_info(reader: _GgufReader) -> _Info:
    name = reader.string("the name of a tensor", _MAX_NAME)
    n_dims = reader.u32(f"the dimensions of {quoted(name)}")
    if not 1 <= n_dims <= _MAX_DIMS:
        reader.fail(f"tensor {quoted(name)}", f"1 to {_MAX_DIMS} dimensions", str(n_dims))
    dims = tuple(reader.u64(f"the dimensions of {quoted(name)}") for _ in range(n_dims))
    number = reader.u32(f"the type of {quoted(name)}")
    try:
        ggml_type = GgmlType(number)
    except ValueError:
        reader.fail(f"tensor {quoted(name)}", "a type that this program knows", str(number))
    return name, dims, ggml_type, reader.u64(f"the offset of {quoted(name)}")


def _placed(reader: _GgufReader, tensor: GgufTensor) -> GgufTensor:
    """Return the tensor with its size, once it is known to lie in the file."""
    n_values, block = tensor.n_values, tensor.ggml_type.block_values
    if min(tensor.dims) < 1 or tensor.dims[0] % block:
        reader.fail(
            f"tensor {quoted(tensor.name)}",
            f"rows of whole {tensor.ggml_type.name} blocks",
            str(tensor.dims),
        )
    n_bytes = n_values // block * tensor.ggml_type.block_bytes
    if tensor.offset + n_bytes > reader.size:
        missing = tensor.offset + n_bytes - reader.size
        raise UsageError(
            f"{reader.path}: tensor {quoted(tensor.name)} of {n_bytes} bytes begins at byte {tensor.offset}, "
            f"{missing} bytes of it lie behind the file's end: the file is truncated, download it again"
        )
    return GgufTensor(tensor.name, tensor.dims, tensor.ggml_type, tensor.offset, n_bytes)


def _check_overlaps(reader: _GgufReader, tensors: Mapping[str, GgufTensor]) -> None:
    end, before = 0, ""
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            reader.fail(
                f"tensor {quoted(tensor.name)}",
                f"it behind {quoted(before)}",
                f"byte {tensor.offset} of both",
            )
        end, before = tensor.offset + tensor.n_bytes, tensor.name


class _GgufReader:
    """Takes values from a file's beginning, one after another."""

    def __init__(self, file: MappedFile) -> None:
        self.path = file.path
        self.size = file.data.nbytes
        self.at = 0
        self._data = file.view

    def fail(self, what: str, expected: str, got: str) -> NoReturn:
        """Raise UsageError about the place that was read last."""
        raise UsageError(
            f"{self.path}: {what} before byte {self.at}: expected {expected}, got {got}: the file is damaged, or "
            "of a version that this program doesn't know"
        )

    def take(self, n: int, what: str) -> memoryview:
        """Return the next ``n`` bytes."""
        if n > self.size - self.at:
            raise UsageError(
                f"{self.path}: {what} at byte {self.at} takes {n} bytes, {self.size - self.at} are left: the file "
                "is truncated or damaged, download it again"
            )
        data = self._data[self.at : self.at + n]
        self.at += n
        return data

    def u32(self, what: str) -> int:
        """Return an unsigned number of 32 bits."""
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        """Return an unsigned number of 64 bits."""
        return int(_U64.unpack(self.take(8, what))[0])

    def count(self, what: str, maximum: int) -> int:
        """Return a number of things that follow."""
        n = self.u64(what)
        if n > maximum:
            self.fail(what, f"at most {maximum}", str(n))
        return n

    def string(self, what: str, maximum: int | None = None) -> str:
        """Return a string of at most so many bytes."""
        n = self.u64(what)
        if maximum is not None and n > maximum:
            self.fail(what, f"at most {maximum} bytes", str(n))
        return bytes(self.take(n, what)).decode("utf-8", "surrogateescape")

    def value(self, what: str, code: int, depth: int = 0) -> Any:
        """Return a value of metadata."""
        if code == _STRING:
            return self.string(what)
        if code == _ARRAY:
            return self._array(what, depth)
        return self._numbers(what, code, 1)[0]

    def _array(self, what: str, depth: int) -> list[Any]:
        code, n = self.u32(what), self.u64(what)
        if code == _STRING:
            self._check_count(what, n, _U64.size)
            return [self.string(what) for _ in range(n)]
        if code != _ARRAY:
            return self._numbers(what, code, n)
        if depth == _MAX_NESTING:
            self.fail(what, f"arrays in arrays up to {_MAX_NESTING} deep", "deeper ones")
        self._check_count(what, n, _U32.size + _U64.size)
        return [self._array(what, depth + 1) for _ in range(n)]

    def _numbers(self, what: str, code: int, n: int) -> list[Any]:
        dtype = _NUMBERS.get(code)
        if dtype is None:
            self.fail(what, "a type of value from 0 to 12", str(code))
        numbers = np.frombuffer(self.take(n * dtype.itemsize, what), dtype)
        return list((numbers != 0 if code == _BOOL else numbers).tolist())

    def _check_count(self, what: str, n: int, least: int) -> None:
        """Refuse a number of things that can't be in what is left, before a list is made of them."""
        if n > (self.size - self.at) // least:
            self.fail(what, f"no more items than fit into {self.size - self.at} bytes", str(n))
