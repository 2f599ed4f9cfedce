"""A model in another project's format: matrices by the entries of a .m file, converted as they are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dllama_proto.enums import FloatType
from dllama_proto.errors import ProtocolError
from dllama_proto.model_file import TensorEntry, tensor_entries
from dllama_proto.model_header import ModelHeader
from dllama_proto.names import WeightName
from dllama_worker.errors import UsageError
from dllama_worker.model.description import ModelDescription
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.source import ModelSource
from dllama_worker.model.stored_tensor import StoredTensor
from dllama_worker.model.weight_choice import choose_logits, choose_weights, tell_conversions

__all__ = ["ConvertedModel", "FindTensor", "open_converted"]

#: The matrices that all nodes multiply with: their type is the model's.
_MATMULS = frozenset(
    {WeightName.Q, WeightName.K, WeightName.V, WeightName.WO, WeightName.W1, WeightName.W2, WeightName.W3}
)

#: What returns the stored matrix of an entry, of the entry's size. Raises UsageError where there is none.
FindTensor = Callable[[TensorEntry], StoredTensor]


class ConvertedModel(ModelSource):
    """An open model whose matrices are converted where nodes hold them otherwise. By :func:`open_converted`."""

    def __init__(
        self,
        path: Path,
        kind: str,
        description: ModelDescription,
        header: ModelHeader,
        stored: Mapping[TensorEntry, StoredTensor],
        n_bytes: int,
    ) -> None:
        super().__init__(path, header)
        self.kind = kind
        self.description = description
        self.stored = stored
        self._n_bytes = n_bytes

    @property
    def n_bytes(self) -> int:
        """Size of the model's files."""
        return self._n_bytes

    @property
    def conversions(self) -> str:
        """What is done to the matrices on the way, for people."""
        return tell_conversions(
            (tensor, entry.float_type) for entry, tensor in self.stored.items() if entry.d > 1
        )

    def rows(self, entry: TensorEntry, rows: range) -> np.ndarray[Any, np.dtype[Any]]:
        """Return rows of a matrix: a view of the file, or converted ones."""
        return self.stored[entry].rows(rows, entry.float_type)

    def release(self, entry: TensorEntry, rows: range) -> None:
        """Let the system take back the memory through which these rows were read."""
        self.stored[entry].release(rows)


def open_converted(
    path: Path,
    kind: str,
    description: ModelDescription,
    find: FindTensor,
    n_bytes: int,
    options: OpenOptions,
) -> ConvertedModel:
    """Find every matrix that a model needs, and decide what they are loaded as.

    Raises UsageError naming the file and what it lacks or says that can't be.
    """
    try:
        drafted = {entry: find(entry) for entry in tensor_entries(description.header(FloatType.F32))}
        weights = choose_weights(
            (tensor for entry, tensor in drafted.items() if entry.name in _MATMULS), options.weights
        )
        classifier = next(tensor for entry, tensor in drafted.items() if entry.name == WeightName.LOGITS)
        header = description.header(weights).with_logits(choose_logits(classifier, weights, options.logits))
    except ProtocolError as error:
        raise UsageError(f"{path}: {error}") from error
    header = header.with_max_seq_len(options.max_seq_len)
    # The entries of another type differ, but not their order.
    stored = dict(zip(tensor_entries(header), drafted.values(), strict=True))
    return ConvertedModel(path, kind, description, header, stored, n_bytes)
