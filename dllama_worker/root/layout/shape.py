"""A node's own dimensions, from the model's and its share; a trailing 0 marks a node's part, as in C++."""

from __future__ import annotations

from dataclasses import dataclass

from dllama_proto.enums import FloatType, RopeType
from dllama_proto.messages import RopeSlice, Size3D
from dllama_proto.model_header import ModelHeader
from dllama_worker.sharding.partition import NodeShare, Partition

__all__ = ["NodeShape"]


@dataclass(frozen=True, slots=True)
class NodeShape:
    """Everything that decides one node's config. ``share`` is the node's part of the ``header``'s model."""

    header: ModelHeader
    share: NodeShare
    node_index: int
    n_nodes: int
    is_even: bool
    sync_type: FloatType
    n_batches: int

    @classmethod
    def of(
        cls,
        header: ModelHeader,
        partition: Partition,
        node_index: int,
        sync_type: FloatType,
        n_batches: int,
    ) -> NodeShape:
        """Return the shape of one node of a partition."""
        share = partition.shares[node_index]
        return cls(header, share, node_index, partition.n_nodes, partition.is_even, sync_type, n_batches)

    @property
    def n_heads0(self) -> int:
        """Query heads of this node."""
        return len(self.share.q_heads)

    @property
    def q_dim0(self) -> int:
        """Width of this node's query heads."""
        return self.n_heads0 * self.header.head_dim

    @property
    def kv_dim0(self) -> int:
        """Width of this node's key (or value) heads."""
        return len(self.share.kv_heads) * self.header.head_dim

    @property
    def ff_dim0(self) -> int:
        """Feed-forward columns of this node."""
        return len(self.share.hidden)

    @property
    def vocab0(self) -> int:
        """Tokens of this node."""
        return len(self.share.vocab)

    @property
    def is_quantized(self) -> bool:
        """Whether rows are quantised before they meet a weight or another node."""
        return self.sync_type is not FloatType.F32

    def rows(self, width: int, *, z: int = 1, float_type: FloatType = FloatType.F32) -> Size3D:
        """Return the size of a batch of rows."""
        return Size3D.of(float_type, z=z, y=self.n_batches, x=width)

    def weight(self, n: int, d: int, *, experts: int = 1) -> Size3D:
        """Return the size of a matmul's weight with ``n`` inputs and ``d`` outputs."""
        return Size3D.of(self.header.weight_float_type, z=experts, y=n, x=d)

    def norm_weight(self) -> Size3D:
        """Return the size of the weight of a norm over whole rows."""
        return Size3D.of(FloatType.F32, x=self.header.dim)

    def rope_slice(self) -> RopeSlice:
        """Return the part of the heads that this node rotates (C++ ``sliceRope``).

        The cache of cosines covers a node's keys and queries: it begins where the keys do and ends where
        the queries do, which with C++'s shares grows with the node's index. Angles depend only on the place
        inside a head, so any other partition has every node begin at 0: a cache as wide as its queries.
        FALCON has one cache for any head and needs none of this; the op's spec says what is undefined then.
        """
        header = self.header
        falcon = header.rope_type is RopeType.FALCON
        q_dim_start = self.share.q_heads.start * header.head_dim if self.is_even else 0
        kv_dim_start = self.share.kv_heads.start * header.head_dim if self.is_even else 0
        q_dim_end = q_dim_start + self.q_dim0
        slice_dim = q_dim_end - kv_dim_start
        return RopeSlice(
            q_dim0=self.q_dim0,
            q_dim_start=q_dim_start,
            q_dim_end=q_dim_end,
            q_shift=q_dim_start - kv_dim_start,
            kv_dim=header.kv_dim,
            kv_dim0=self.kv_dim0,
            kv_dim_start=kv_dim_start,
            slice_dim=slice_dim,
            seq_len=header.seq_len,
            head_dim=header.head_dim,
            n_kv_heads=header.n_kv_heads,
            rope_theta=header.rope_theta,
            cache_size=Size3D.of(
                FloatType.F32, y=header.seq_len, x=header.head_dim if falcon else slice_dim
            ),
        )
