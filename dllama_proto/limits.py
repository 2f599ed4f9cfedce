"""How much a peer may claim before it is believed; every number with its reason.

Nothing on the wire says how long a message is: counts and lengths inside it do. Each is held against
its limit before anything is read, looped over or allocated by it. Limits are wide (ten times the
largest published model, usually more), since their work is to tell a cluster from a port scanner, and
to bound what a malicious root can make a worker reserve.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest values that are accepted. Sizes are in bytes; lengths of strings count the final NUL."""

    #: Workers of a cluster. C++ stops at the number of KV heads, 8 to 64 in published models.
    n_sockets: int = 255
    #: A DNS name has at most 253 characters, an address far fewer.
    host_length: int = 255
    #: Why a worker refuses: one line, a few hundred characters.
    refusal_length: int = 4_096
    #: Names of pipes, buffers and ops; the longest that C++ sends ("block_multihead_att") takes 20.
    name_length: int = 255
    #: Rows of a forward; C++ sends 32. Positions must stay exact in float32, seq_len bounds them as well.
    n_batches: int = 65_536
    #: C++ has 5 pipes, whatever the model.
    n_pipes: int = 256
    #: C++ has one (positions).
    n_pre_syncs: int = 256
    #: C++ has up to 23, and 2 a layer; the deepest published models have 126 layers.
    n_buffers: int = 4_096
    #: C++ has 2 a layer and 2.
    n_segments: int = 4_096
    #: Syncs of all segments together; C++ has one a segment.
    n_syncs: int = 8_192
    #: Ops of all segments together; C++ has up to 35 a layer.
    n_ops: int = 65_536
    #: One tensor: an expert weight [128][4096][16384] in float32 takes 32 GiB.
    tensor_bytes: int = 256 * _GIB
    #: Pipes, buffers and weights of a node together. Whether the machine has it is for the worker to ask.
    memory_bytes: int = 1024 * _GIB
    #: One piece of a weight. C++ sends a matrix of one expert at a time, and whole layers otherwise.
    weight_piece_bytes: int = 64 * _GIB


#: What a connection uses unless told otherwise.
DEFAULT_LIMITS = Limits()
