"""What a model is to those who load it: a header, and rows of its tensors as nodes hold them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dllama_proto.model_file import TensorEntry, tensor_entries
from dllama_proto.model_header import ModelHeader

__all__ = ["ModelSource"]

_Key = tuple[str, int, int | None]


class ModelSource(ABC):
    """An open model, whatever it is stored as.

    ``header`` describes it as a .m file's would, ``tensors`` are its entries by (name, layer, expert); their
    ``offset`` means nothing but in a .m file. Nothing is read before :meth:`rows`.
    """

    #: What the format is called, for people.
    kind: str

    #: What a file says beside its weights, by the format's own keys: a GGUF file has its tokenizer there.
    metadata: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: Path, header: ModelHeader) -> None:
        self.path = path
        self.header = header
        self.tensors: Mapping[_Key, TensorEntry] = MappingProxyType(
            {(entry.name, entry.layer, entry.expert): entry for entry in tensor_entries(header)}
        )

    @property
    @abstractmethod
    def n_bytes(self) -> int:
        """Size of the model as it is stored."""

    @property
    def n_weight_bytes(self) -> int:
        """Size of all weights as nodes hold them, the embedding among them."""
        return sum(entry.n_bytes for entry in self.tensors.values())

    @property
    def conversions(self) -> str:
        """What is done to the weights on the way, for people; empty where nodes get them as they are stored."""
        return ""

    @abstractmethod
    def rows(self, entry: TensorEntry, rows: range) -> np.ndarray[Any, np.dtype[Any]]:
        """Return rows of a tensor: (rows, n) numbers, or (rows, n / 32) blocks where nodes hold blocks.

        A view of the file where it has them so, read-only and perhaps not aligned; else a copy. From any thread.
        Raises UsageError where the file turns out to be damaged.
        """

    @abstractmethod
    def release(self, entry: TensorEntry, rows: range) -> None:
        """Let the system take back the memory through which these rows were read. From any thread."""
