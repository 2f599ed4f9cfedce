"""Every message as a frozen record, in the field's own terms.

The schemas in :mod:`dllama_proto.schemas` turn bytes into these records and back; nothing else in the
project sees a parsed construct container. Field order is the order on the wire. Records do not check
themselves: what came off the wire was checked by the parser, and what a root builds is checked when it is
encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dllama_proto.endpoint import Endpoint
from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, RopeType, SyncType
from dllama_proto.floats import n_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "BufferConfig",
    "ControlPacket",
    "EmptyConfig",
    "Greeting",
    "InvRmsConfig",
    "MatmulConfig",
    "MoeGateConfig",
    "MulConfig",
    "MultiHeadAttConfig",
    "NetConfig",
    "NodeConfig",
    "OpConfig",
    "OpParams",
    "Peer",
    "PipeConfig",
    "Pointer",
    "PreSyncConfig",
    "Refusal",
    "RmsNormConfig",
    "RopeConfig",
    "RopeSlice",
    "ScaleConfig",
    "SegmentConfig",
    "ShiftConfig",
    "Size3D",
    "SyncConfig",
    "WeightHeader",
]


@dataclass(frozen=True, slots=True)
class Size3D:
    """Type and shape of a tensor (C++ ``NnSize3D``, 40 bytes): ``length`` values in ``n_bytes`` bytes."""

    float_type: FloatType
    z: int
    y: int
    x: int
    length: int
    n_bytes: int
    n_bytes_xy: int

    @classmethod
    def of(cls, float_type: FloatType, *, z: int = 1, y: int = 1, x: int) -> Size3D:
        """Return the size of a [z][y][x] tensor (C++ ``size1D``, ``size2D``, ``size3D``).

        Raises ValueError where a row of x values is not whole blocks of the type.
        """
        length = z * y * x
        return cls(float_type, z, y, x, length, n_bytes(float_type, length), n_bytes(float_type, y * x))

    @classmethod
    def none(cls) -> Size3D:
        """Return the size of no tensor at all (C++ ``size0``): what an op without a weight carries."""
        return cls(FloatType.UNK, 0, 0, 0, 0, 0, 0)


# Joining ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Where another worker listens."""

    host: str
    port: int

    @property
    def endpoint(self) -> Endpoint:
        """The same, as people write it."""
        return Endpoint(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a root says first: ``n_sockets`` workers, you are number ``worker_index`` of them (from 0).

    ``peers`` are the other workers in the root's order, ``n_sockets - 1`` of them.
    """

    n_sockets: int
    worker_index: int
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a worker says, in place of an ack, when it cannot go on: ``reason``, one line for people.

    An extension of this project: C++ workers close the connection and say nothing.
    """

    reason: str


# Configuration ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PipeConfig:
    """Memory that syncs exchange, the same on every node."""

    size: Size3D
    name: str


@dataclass(frozen=True, slots=True)
class PreSyncConfig:
    """A pipe that is set before the first segment (positions)."""

    pipe_index: int


@dataclass(frozen=True, slots=True)
class NetConfig:
    """What all nodes share."""

    n_batches: int
    n_nodes: int
    pipes: tuple[PipeConfig, ...]
    pre_syncs: tuple[PreSyncConfig, ...]


@dataclass(frozen=True, slots=True)
class BufferConfig:
    """Memory of one node."""

    size: Size3D
    name: str


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """One exchange at the end of a segment."""

    pipe_index: int
    sync_type: SyncType


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which memory, and which part of it, an op reads or writes (12 bytes)."""

    source: PointerSource
    index: int
    type: PointerType


@dataclass(frozen=True, slots=True)
class EmptyConfig:
    """Config of an op that needs none. An empty C++ struct is one byte, of any value: ``padding``."""

    padding: bytes = b"\0"


@dataclass(frozen=True, slots=True)
class InvRmsConfig:
    """``n_columns`` groups a row; ``epsilon`` is added to the mean square."""

    epsilon: float
    n_columns: int


@dataclass(frozen=True, slots=True)
class RmsNormConfig:
    """Where INV_RMS left its result, and how many groups a row has."""

    inv_rms_buffer: int
    n_columns: int


@dataclass(frozen=True, slots=True)
class MatmulConfig:
    """All zero, but for the buffer, which then means nothing, where the weight has no experts."""

    n_experts: int
    n_active_experts: int
    active_expert_indexes_buffer: int


@dataclass(frozen=True, slots=True)
class RopeSlice:
    """Which part of the heads a node rotates (C++ ``NnRopeSlice``); some of it is undefined with FALCON."""

    q_dim0: int
    q_dim_start: int
    q_dim_end: int
    q_shift: int
    kv_dim: int
    kv_dim0: int
    kv_dim_start: int
    slice_dim: int
    seq_len: int
    head_dim: int
    n_kv_heads: int
    rope_theta: float
    cache_size: Size3D


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotation of queries (``is_q`` 1) or keys (0); ``scaling_factor`` and on are for LLAMA3_1."""

    type: RopeType
    is_q: int
    position_pipe: int
    rope_cache_buffer: int
    scaling_factor: float
    low_freq_factor: float
    high_freq_factor: float
    orig_max_seq_len: int
    slice: RopeSlice


@dataclass(frozen=True, slots=True)
class MultiHeadAttConfig:
    """Attention of this node's ``n_heads0`` of ``n_heads`` query heads; caches are [seq_len][kv_dim0]."""

    n_heads: int
    n_heads0: int
    n_kv_heads: int
    head_dim: int
    seq_len: int
    q_slice_d0: int
    kv_dim0: int
    position_pipe: int
    query_buffer: int
    key_cache_buffer: int
    value_cache_buffer: int
    att_buffer: int


@dataclass(frozen=True, slots=True)
class MulConfig:
    """Which buffer to multiply with."""

    multiplier_buffer: int


@dataclass(frozen=True, slots=True)
class ScaleConfig:
    """Which buffer holds one factor a row."""

    scale_buffer: int


@dataclass(frozen=True, slots=True)
class ShiftConfig:
    """Which pipe holds the cache row of each row."""

    index_pipe: int


@dataclass(frozen=True, slots=True)
class MoeGateConfig:
    """Take the best ``k`` experts; ``norm_topk`` 1 divides their weights by their sum."""

    k: int
    norm_topk: int
    indexes_buffer: int


#: The configs of the C++ program's ops; other ops bring records of their own.
OpParams = (
    EmptyConfig
    | InvRmsConfig
    | RmsNormConfig
    | MatmulConfig
    | RopeConfig
    | MultiHeadAttConfig
    | MulConfig
    | ScaleConfig
    | ShiftConfig
    | MoeGateConfig
)


@dataclass(frozen=True, slots=True)
class OpConfig:
    """One operation. ``index`` is the layer; ``name`` and ``index`` together address its weight.

    ``config`` is a record of the class that the code's spec says (:mod:`dllama_proto.schemas.op_configs`).
    """

    code: OpCode
    index: int
    weight_size: Size3D
    name: str
    input: Pointer
    output: Pointer
    config: OpParams | DataclassInstance


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """Ops, then syncs."""

    syncs: tuple[SyncConfig, ...]
    ops: tuple[OpConfig, ...]


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What one node holds and does; ``node_index`` counts nodes, the root is 0."""

    node_index: int
    buffers: tuple[BufferConfig, ...]
    segments: tuple[SegmentConfig, ...]


# Weights and inference ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WeightHeader:
    """Announces ``n_bytes`` bytes of the weight of op (``name``, ``op_index``), from byte ``offset``."""

    name: str
    op_index: int
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class ControlPacket:
    """Evaluate ``batch_size`` rows from ``position``; a batch size of 0 is the end of the session."""

    position: int
    batch_size: int

    @property
    def is_stop(self) -> bool:
        """Whether this ends the session."""
        return self.batch_size == 0
