"""Which bytes of the model each node's ops are loaded with, and in which order they travel.

Source: C++ ``loadLlmNetWeight`` (``llm.cpp``) and ``NnRootWeightLoader`` (``nn-network.cpp``): the order
of the file; rows of the matmuls whose outputs are shared out, columns of those whose inputs are, all of the
norms and the expert gate; the embedding for the root alone. Key-value heads go to every node that needs
them, a node without heads and columns gets nothing of the layers, and where the vocabulary is filled up,
zeros follow. Nothing is read here: a piece says where its bytes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dllama_proto.floats import n_bytes
from dllama_proto.messages import WeightHeader
from dllama_proto.model_file import TensorEntry, tensor_entries
from dllama_proto.model_header import ModelHeader
from dllama_proto.names import WeightName, is_of_layer
from dllama_worker.model.source import ModelSource
from dllama_worker.sharding.partition import NodeShare, Partition
from dllama_worker.sharding.slicing import TensorSlice

__all__ = ["WeightPiece", "node_weight_pieces"]

#: Large enough that a call costs nothing beside its bytes, small enough not to be noticed in memory.
_PORTION_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class WeightPiece:
    """Bytes for the weight of one op: ``header`` is what announces them, ``slice`` where they are from.

    Without a slice they are zeros.
    """

    header: WeightHeader
    slice: TensorSlice | None

    def data(self, model: ModelSource) -> memoryview:
        """Return the bytes: a view of the file, or a copy for slices of columns."""
        return memoryview(bytes(self.header.n_bytes)) if self.slice is None else self.slice.data(model)

    def portions(self, model: ModelSource) -> Iterator[tuple[int, memoryview]]:
        """Yield the same bytes a few at a time, each with its offset in the weight.

        What has been used is released from memory, so a file of any size takes little of it.
        """
        offset = self.header.offset
        if self.slice is None:
            yield offset, self.data(model)
            return
        for part in self.slice.parts(_PORTION_BYTES):
            data = part.data(model)
            yield offset, data
            offset += len(data)
            model.release(part.entry, part.rows)


def node_weight_pieces(header: ModelHeader, partition: Partition, node_index: int) -> Iterator[WeightPiece]:
    """Yield every weight of a node, in the order in which the C++ root sends it.

    Node 0's are what the root loads itself, the embedding among them. Experts follow each other in the
    weight of one op, so their pieces have offsets.
    """
    share = partition.shares[node_index]
    for entry in tensor_entries(header):
        if entry.name == WeightName.EMBEDDING and node_index > 0:
            continue
        if is_of_layer(entry.name) and not share.q_heads:
            continue
        part = _SLICES[entry.name](entry, header, share)
        size = 0 if part is None else part.n_bytes
        offset = (entry.expert or 0) * size
        if part is not None:
            yield WeightPiece(WeightHeader(entry.name, entry.layer, offset, size), part)
        if entry.name == WeightName.LOGITS and share.vocab.stop > header.vocab_size:
            missing = n_bytes(entry.float_type, len(share.vocab) * entry.n) - size
            yield WeightPiece(WeightHeader(entry.name, entry.layer, size, missing), None)


_Slicer = Callable[[TensorEntry, ModelHeader, NodeShare], TensorSlice | None]


def _whole(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice:
    return TensorSlice.whole(entry)


def _q_rows(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice:
    return TensorSlice.of_rows(entry, _of_heads(share.q_heads, header))


def _kv_rows(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice:
    return TensorSlice.of_rows(entry, _of_heads(share.kv_heads, header))


def _q_columns(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice:
    return TensorSlice.of_columns(entry, _of_heads(share.q_heads, header))


def _kv_columns(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice:
    return TensorSlice.of_columns(entry, _of_heads(share.kv_heads, header))


def _hidden_rows(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice:
    return TensorSlice.of_rows(entry, share.hidden)


def _hidden_columns(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice:
    return TensorSlice.of_columns(entry, share.hidden)


def _vocab_rows(entry: TensorEntry, header: ModelHeader, share: NodeShare) -> TensorSlice | None:
    rows = range(share.vocab.start, min(share.vocab.stop, header.vocab_size))
    return TensorSlice.of_rows(entry, rows) if rows else None


def _of_heads(heads: range, header: ModelHeader) -> range:
    return range(heads.start * header.head_dim, heads.stop * header.head_dim)


_SLICES: Mapping[str, _Slicer] = MappingProxyType(
    {
        WeightName.EMBEDDING: _whole,
        WeightName.Q: _q_rows,
        WeightName.K: _kv_rows,
        WeightName.V: _kv_rows,
        WeightName.BIAS_Q: _q_columns,
        WeightName.BIAS_K: _kv_columns,
        WeightName.BIAS_V: _kv_columns,
        WeightName.WO: _q_columns,
        WeightName.MOE_GATE: _whole,
        WeightName.W1: _hidden_rows,
        WeightName.W2: _hidden_columns,
        WeightName.W3: _hidden_rows,
        WeightName.NORM_Q: _whole,
        WeightName.NORM_K: _whole,
        WeightName.NORM_0: _whole,
        WeightName.NORM_1: _whole,
        WeightName.FINAL_NORM: _whole,
        WeightName.LOGITS: _vocab_rows,
    }
)
