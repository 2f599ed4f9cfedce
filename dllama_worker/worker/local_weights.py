"""Weights from a model file on this machine: instead of the root's, or to hold the root's against.

Which part of each tensor belongs to this node is not on the wire: an even split is assumed, which is what
the C++ root makes, and ``dllama-root`` with ``--split even`` for any number of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dllama_proto.formatting import counted
from dllama_proto.messages import NetConfig, NodeConfig
from dllama_worker.errors import UsageError, WeightMismatch
from dllama_worker.model.source import ModelSource
from dllama_worker.sharding.apportion import partition_evenly
from dllama_worker.sharding.pieces import WeightPiece, node_weight_pieces

__all__ = ["LocalWeights"]


class LocalWeights:
    """This node's part of a model file. Raises UsageError where the file cannot be what the root has."""

    def __init__(self, model: ModelSource, net: NetConfig, config: NodeConfig) -> None:
        self._model = model
        partition = partition_evenly(model.header, net.n_nodes)
        self._pieces: dict[tuple[str, int], list[WeightPiece]] = {}
        for piece in node_weight_pieces(model.header, partition, config.node_index):
            self._pieces.setdefault((piece.header.name, piece.header.op_index), []).append(piece)
        self._latest: tuple[WeightPiece, np.ndarray[Any, np.dtype[np.uint8]]] | None = None
        self._check_sizes(config)

    def portions(self) -> Iterator[tuple[str, int, int, memoryview]]:
        """Yield everything that this node needs, as (op name, op index, offset, bytes); use each at once."""
        for (name, index), pieces in self._pieces.items():
            for piece in pieces:
                for offset, data in piece.portions(self._model):
                    yield name, index, offset, data

    def check(self, name: str, index: int, offset: int, received: memoryview) -> None:
        """Hold what the root sent for an op, from byte ``offset`` on, against the file.

        Raises WeightMismatch naming the tensor and the first byte that differs.
        """
        end = offset + len(received)
        for piece in self._pieces[name, index]:
            start, stop = piece.header.offset, piece.header.offset + piece.header.n_bytes
            low, high = max(start, offset), min(stop, end)
            if low >= high:
                continue
            ours = self._bytes_of(piece)[low - start : high - start]
            theirs = np.frombuffer(received, dtype=np.uint8)[low - offset : high - offset]
            if not np.array_equal(ours, theirs):
                first = low + int(np.argmax(ours != theirs))
                raise WeightMismatch(
                    f"{name} of layer {index}: what the root sends differs from {self._model.path} at byte "
                    f"{first} of this node's part: expected {ours[first - low]}, got {theirs[first - low]}; "
                    "the root runs another model, or shares it out unevenly: start without --model"
                )

    def _bytes_of(self, piece: WeightPiece) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a piece of the file. The last one is kept: it is compared part by part, and may be a copy."""
        if self._latest is None or self._latest[0] is not piece:
            self._latest = piece, np.frombuffer(piece.data(self._model), dtype=np.uint8)
        return self._latest[1]

    def _check_sizes(self, config: NodeConfig) -> None:
        wanted = {
            (op.name, op.index): op.weight_size.n_bytes
            for segment in config.segments
            for op in segment.ops
            if op.weight_size.n_bytes
        }
        held = {key: sum(piece.header.n_bytes for piece in pieces) for key, pieces in self._pieces.items()}
        for name, index in sorted(wanted.keys() | held.keys()):
            theirs, ours = wanted.get((name, index), 0), held.get((name, index), 0)
            if theirs != ours:
                raise UsageError(
                    f"{self._model.path} is not the root's model, or the root shares it out unevenly (start "
                    f"without --model then): for {name} of layer {index} the root wants "
                    f"{counted(theirs, 'byte')} of this node, an even split of the file has {ours}"
                )
