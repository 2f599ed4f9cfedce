"""A GGUF model of several files: ``NAME-00001-of-00003.gguf`` and those beside it, taken together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllama_proto.bounded_text import quoted
from dllama_worker.errors import UsageError
from dllama_worker.model.gguf.container import GgufContainer, GgufTensor, read_container
from dllama_worker.model.mapped_file import MappedFile

__all__ = ["GgufModel", "read_gguf"]

_SHARD = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_MAX_SHARDS = 4096


@dataclass(frozen=True, slots=True)
class GgufModel:
    """All tensors of a model's files, each with its file, and the metadata of the first."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[MappedFile, GgufTensor]]
    n_bytes: int


def read_gguf(path: Path) -> GgufModel:
    """Read a GGUF model from any of its files.

    Raises UsageError naming the file and what is wrong with it, or which file is missing; OSError.
    """
    count = _count(read_container(MappedFile(path)), path)
    containers = [read_container(MappedFile(shard)) for shard in _shards(path, count)]
    tensors: dict[str, tuple[MappedFile, GgufTensor]] = {}
    for number, container in enumerate(containers):
        here = container.file.path
        stated = container.metadata.get("split.no", 0), _count(container, here)
        if stated != (number, count):
            raise UsageError(
                f"{here}: says that it is part {stated[0]} of {stated[1]}, expected part {number} of {count}: the "
                "files are not of one model"
            )
        for name, tensor in container.tensors.items():
            if name in tensors:
                raise UsageError(f"{here}: has tensor {quoted(name)}, as {tensors[name][0].path} does")
            tensors[name] = container.file, tensor
    first = containers[0]
    return GgufModel(
        first.file.path,
        first.metadata,
        tensors,
        sum(container.file.data.nbytes for container in containers),
    )


def _count(container: GgufContainer, path: Path) -> int:
    count = container.metadata.get("split.count", 0) or 1
    if not isinstance(count, int) or not 1 <= count <= _MAX_SHARDS:
        raise UsageError(
            f"{path}: split.count: expected a number from 1 to {_MAX_SHARDS}, got {str(count)[:40]}"
        )
    return count


def _shards(path: Path, count: int) -> list[Path]:
    if count == 1:
        return [path]
    match = _SHARD.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise UsageError(
            f"{path}: is one of {count} files of a model, which are found by their names: it must be called "
            f"NAME-00001-of-{count:05}.gguf"
        )
    shards = [path.with_name(f"{match['name']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)]
    missing = next((shard for shard in shards if not shard.exists()), None)
    if missing is not None:
        raise UsageError(f"{missing}: is missing, one of the {count} files of {path}: download it, too")
    return shards
