"""The head of a .m model file: magic number, size, then pairs of a key and a value.

The size counts everything before the weights, itself and the magic number included. What keys mean, and which
values they may have, is decided in :mod:`dllama_proto.model_header`.
"""

from __future__ import annotations

from enum import IntEnum

from construct import Array, Const, Int32sl, Int32ul, Rebuild, Struct, len_, this

__all__ = ["MODEL_HEADER", "MODEL_MAGIC", "MODEL_PAIR", "MODEL_PREFIX", "ModelKey"]

#: First four bytes of every model file.
MODEL_MAGIC = 0x0A00ABCD


class ModelKey(IntEnum):
    """What a value of the header is (C++ ``LlmHeaderKey`` of ``llm.hpp``)."""

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
"""The first bytes of a .m file. ``header_size`` counts them too.

Example, from a file::

    cdab000a 60000000  magic=0x0A00ABCD, header_size=96

Size in bytes: ``8``.

Written by ``writeHeader`` (``converter/writer.py``), read by ``loadLlmHeader`` (``llm.cpp``).
"""

MODEL_PAIR = Struct("key" / Int32sl, "value" / Int32sl)
"""One entry of the header: a :class:`ModelKey` and its value.

Example, from a file::

    01000000 00cdab00  key=ARCH, value=0xABCD00

Size in bytes: ``8``.

Written by ``writeHeader`` (``converter/writer.py``), read by ``loadLlmHeader`` (``llm.cpp``).
"""

MODEL_HEADER = Struct(
    "magic" / Const(MODEL_MAGIC, Int32ul),
    "header_size" / Rebuild(Int32ul, MODEL_PREFIX.sizeof() + MODEL_PAIR.sizeof() * len_(this.pairs)),
    "pairs" / Array((this.header_size - MODEL_PREFIX.sizeof()) // MODEL_PAIR.sizeof(), MODEL_PAIR),
)
"""The whole header of a .m file. Tensors follow.

Example, from a file::

    cdab000a 60000000                    magic=0x0A00ABCD, header_size=96
    00000000 00000000 01000000 00cdab00  key=VERSION, value=0, key=ARCH, value=0xABCD00
    0b000000 01000000 0d000000 02000000  key=HIDDEN_ACT, value=1, key=WEIGHT_FLOAT_TYPE, value=2
    02000000 80000000 03000000 00010000  key=DIM, value=128, key=HIDDEN_DIM, value=256
    04000000 02000000 05000000 04000000  key=N_LAYERS, value=2, key=N_HEADS, value=4
    06000000 04000000 09000000 00020000  key=N_KV_HEADS, value=4, key=VOCAB_SIZE, value=512
    0a000000 00010000                    key=SEQ_LEN, value=256

Size in bytes: ``8 + 8 * len(pairs)``.

Written by ``writeHeader`` (``converter/writer.py``), read by ``loadLlmHeader`` (``llm.cpp``).
"""
