"""Puts a segment together: ops one after another, then syncs."""

from __future__ import annotations

from dllama_proto.enums import OpCode, PointerSource, PointerType, SyncType
from dllama_proto.messages import (
    EmptyConfig,
    InvRmsConfig,
    OpConfig,
    OpParams,
    Pointer,
    RmsNormConfig,
    SegmentConfig,
    Size3D,
    SyncConfig,
)
from dllama_proto.names import Pipe
from dllama_worker.root.layout.shape import NodeShape

__all__ = ["SegmentBuilder", "buffer", "pipe"]


def pipe(index: Pipe, *, sliced: bool = False) -> Pointer:
    """Point at the rows of a pipe, or at this node's slice of them."""
    return Pointer(PointerSource.PIPE, index, PointerType.BATCHED_SLICE if sliced else PointerType.BATCH)


def buffer(index: int, *, sliced: bool = False, raw: bool = False) -> Pointer:
    """Point at the rows of a buffer, at this node's slice of them, or (``raw``) at all of it as one row."""
    kind = PointerType.RAW if raw else PointerType.BATCHED_SLICE if sliced else PointerType.BATCH
    return Pointer(PointerSource.BUFFER, index, kind)


class SegmentBuilder:
    """Collects the ops of one segment; all are of one layer, which is also how weights find them."""

    def __init__(self, shape: NodeShape, layer: int = 0) -> None:
        self._shape = shape
        self._layer = layer
        self._ops: list[OpConfig] = []
        self._syncs: list[SyncConfig] = []

    def op(
        self,
        code: OpCode,
        name: str,
        source: Pointer,
        target: Pointer,
        *,
        weight: Size3D | None = None,
        config: OpParams | None = None,
    ) -> None:
        """Append an op."""
        self._ops.append(
            OpConfig(
                code=code,
                index=self._layer,
                weight_size=weight or Size3D.none(),
                name=name,
                input=source,
                output=target,
                config=config or EmptyConfig(),
            )
        )

    def cast(self, name: str, source: Pointer, target: Pointer) -> None:
        """Append a copy or conversion; between the same memory there is nothing to do."""
        if source != target:
            self.op(OpCode.CAST, name, source, target)

    def norm(
        self,
        name: str,
        pre_name: str,
        source: int,
        target: int,
        inv_rms: int,
        weight: Size3D,
        columns: int = 1,
    ) -> None:
        """Append the two ops of a norm over ``columns`` groups a row."""
        config = InvRmsConfig(self._shape.header.norm_epsilon, columns)
        self.op(OpCode.INV_RMS, pre_name, buffer(source), buffer(inv_rms), config=config)
        self.op(
            OpCode.RMS_NORM,
            name,
            buffer(source),
            buffer(target),
            weight=weight,
            config=RmsNormConfig(inv_rms, columns),
        )

    def sync(self, index: Pipe, sync_type: SyncType) -> None:
        """Append an exchange."""
        self._syncs.append(SyncConfig(index, sync_type))

    def build(self) -> SegmentConfig:
        """Return the segment."""
        return SegmentConfig(tuple(self._syncs), tuple(self._ops))
