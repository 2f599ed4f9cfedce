"""The head of a .m model file: magic number, size, then pairs of a key and a value.

Sources: C++ ``LlmHeaderKey`` and ``loadLlmHeader`` (``llm.hpp``, ``llm.cpp``). The size counts everything
before the weights, itself and the magic number included. What keys mean, and which values they may have, is
decided in :mod:`dllama_proto.model_header`.
"""

from __future__ import annotations

from enum import IntEnum

from construct import Array, Const, Int32sl, Int32ul, Rebuild, Struct, len_, this

__all__ = ["MODEL_HEADER", "MODEL_MAGIC", "MODEL_PAIR", "MODEL_PREFIX", "ModelKey"]

#: First four bytes of every model file.
MODEL_MAGIC = 0x0A00ABCD


class ModelKey(IntEnum):
    """What a value of the header is (C++ ``LlmHeaderKey``)."""

    VERSION = 0
    ARCH = 1
    DIM = 2
    HIDDEN_DIM = 3
    N_LAYERS = 4
    N_HEADS = 5
    N_KV_HEADS = 6
    N_EXPERTS = 7
    N_ACTIVE_EXPERTS = 8
    VOCAB_SIZE = 9
    SEQ_LEN = 10
    HIDDEN_ACT = 11
    ROPE_THETA = 12
    WEIGHT_FLOAT_TYPE = 13
    ROPE_SCALING_FACTOR = 14
    ROPE_SCALING_LOW_FREQ_FACTOR = 15
    ROPE_SCALING_HIGH_FREQ_FACTOR = 16
    ROPE_SCALING_ORIG_MAX_SEQ_LEN = 17
    ROPE_TYPE = 18
    HEAD_DIM = 19
    NORM_EPSILON = 20
    MOE_HIDDEN_DIM = 21


MODEL_PREFIX = Struct("magic" / Int32ul, "header_size" / Int32ul)

MODEL_PAIR = Struct("key" / Int32sl, "value" / Int32sl)

MODEL_HEADER = Struct(
    "magic" / Const(MODEL_MAGIC, Int32ul),
    "header_size" / Rebuild(Int32ul, MODEL_PREFIX.sizeof() + MODEL_PAIR.sizeof() * len_(this.pairs)),
    "pairs" / Array((this.header_size - MODEL_PREFIX.sizeof()) // MODEL_PAIR.sizeof(), MODEL_PAIR),
)
