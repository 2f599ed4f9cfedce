"""Numbers that name things on the wire and in files, under the C++ names without their prefix.

Sources: ``nn-quants.hpp`` (float types), ``llm.hpp`` (model families), ``nn-core.hpp`` (everything else). This
module imports nothing but the standard library, so that kernels can use it without pulling in a parser.
"""

from __future__ import annotations

import re
from enum import IntEnum

__all__ = [
    "ArchType",
    "FloatType",
    "OpCode",
    "OpQuantType",
    "PointerSource",
    "PointerType",
    "RopeType",
    "SyncType",
    "op_quant_type",
]


class ArchType(IntEnum):
    """Model families (C++ ``LlmArchType``)."""

    LLAMA = 0xABCD00
    QWEN3 = 0xABCD01
    QWEN3_MOE = 0xABCD02


class FloatType(IntEnum):
    """How numbers are stored (C++ ``NnFloatType``); on the wire an ``i32``."""

    #: No tensor at all: the weight of an op that has none.
    UNK = -1
    #: IEEE single.
    F32 = 0
    #: IEEE half. Nodes know its size but no kernel computes with it.
    F16 = 1
    #: Blocks of 32: one half as the scale, then 16 bytes of nibbles.
    Q40 = 2
    #: Blocks of 32: one half as the scale, then 32 signed bytes.
    Q80 = 3


class OpCode(IntEnum):
    """What an op computes (C++ ``NnOpCode``).

    The members are the codes that the C++ program has. :meth:`define` gives names to others; those are no
    members, so that iterating over the class stays what it was, but are found by ``OpCode(number)``. Which
    codes this process can read or compute is said by the tables of op specs, not here.
    """

    #: Adds each node's slice of a row to the output row.
    MERGE_ADD = 0
    #: Sums over z (the active experts).
    MERGE_SUM = 1
    #: Looks up a row of the weight by token number.
    EMBEDDING = 2
    #: Reciprocal root mean square of each column group.
    INV_RMS = 3
    #: Scales by ``INV_RMS``'s result and the weight.
    RMS_NORM = 4
    #: Weight times row; with experts, by the expert indexes of the row.
    MATMUL = 5
    #: Rotary position embedding, in place.
    ROPE = 6
    #: Attention over the key and value caches.
    MULTIHEAD_ATT = 7
    #: GELU, tanh form, in place.
    GELU = 8
    #: SiLU, in place.
    SILU = 9
    #: Elementwise product with a buffer.
    MUL = 10
    #: Product with one number a row.
    SCALE = 11
    #: Copies or converts between float types.
    CAST = 12
    #: Copies (quantising) a row to every z.
    REPEAT_Z = 13
    #: Stores rows into a cache at the row given by a pipe.
    SHIFT = 14
    #: Softmax of a row, in place.
    SOFTMAX = 15
    #: Top-k experts of a row and their weights.
    MOE_GATE = 16

    @classmethod
    def define(cls, number: int, name: str) -> OpCode:
        """Return the code with this number and name, made if there is none yet.

        A number keeps its name as long as the process runs. ``name`` is of capitals, digits and ``_``, as
        the others are. Raises ValueError where the number has another name or the name another number, or
        where the wire or people could not carry them.
        """
        if not 0 <= number < 2**31 or not _NAME.fullmatch(name):
            raise ValueError(
                f"expected a number of 0 to {2**31 - 1} and a name such as MERGE_ADD, got {number} and {name!r}"
            )
        known: tuple[OpCode, ...] = (*cls, *_defined.values())
        for code in known:
            if (code.value == number) != (code.name == name):
                raise ValueError(f"op code {code.value} is {code.name}, so {number} cannot be {name}")
            if code.value == number:
                return code
        made: OpCode = int.__new__(cls, number)
        made._name_, made._value_ = name, number
        _defined[number] = made
        return made

    @classmethod
    def _missing_(cls, value: object) -> OpCode | None:
        return _defined.get(value) if isinstance(value, int) else None


#: Codes beyond those of the C++ program, by number.
_defined: dict[int, OpCode] = {}

_NAME = re.compile("[A-Z][A-Z0-9_]*")


class OpQuantType(IntEnum):
    """``<input>_<weight>_<output>`` (C++ ``NnOpQuantType``); chosen on each node, never sent."""

    F32_F32_F32 = 0
    F32_Q40_F32 = 1
    F32_Q40_Q80 = 2
    F32_F32_Q80 = 3
    Q80_Q80_Q80 = 4
    Q80_Q80_F32 = 5
    Q80_Q40_F32 = 6
    Q80_F32_F32 = 7


class PointerSource(IntEnum):
    """Where a pointer points (C++ ``NnPointerSource``)."""

    #: Memory that syncs exchange between nodes; described by the net config.
    PIPE = 0
    #: Memory of one node; described by its node config.
    BUFFER = 1


class PointerType(IntEnum):
    """Which part of the memory an op sees (C++ ``NnPointerType``)."""

    #: All of it as one row.
    RAW = 0
    #: Its rows ``[z][y]``, y being the batch.
    BATCH = 1
    #: The same rows, but only this node's columns: ``x / n_nodes`` of them at ``node_index``.
    BATCHED_SLICE = 2


class SyncType(IntEnum):
    """Who sends what to whom (C++ ``NnSyncType``)."""

    #: The root sends whole rows to every worker.
    WITH_ROOT = 0
    #: Every node sends its slice of the rows to every other node.
    NODE_SLICES = 1
    #: Every worker sends its slice of the rows to the root.
    NODE_SLICES_EXCEPT_ROOT = 2


class RopeType(IntEnum):
    """Which pairs rotate, and whether frequencies are scaled (C++ ``NnRopeType``)."""

    #: Pairs are neighbours.
    LLAMA = 0
    #: Pairs are half a head apart.
    FALCON = 1
    #: As ``LLAMA``, with frequencies scaled by wavelength.
    LLAMA3_1 = 2


_QUANT_TYPES = {
    (FloatType.F32, FloatType.F32, FloatType.F32): OpQuantType.F32_F32_F32,
    (FloatType.F32, FloatType.Q40, FloatType.F32): OpQuantType.F32_Q40_F32,
    (FloatType.F32, FloatType.Q40, FloatType.Q80): OpQuantType.F32_Q40_Q80,
    (FloatType.F32, FloatType.F32, FloatType.Q80): OpQuantType.F32_F32_Q80,
    (FloatType.Q80, FloatType.Q80, FloatType.Q80): OpQuantType.Q80_Q80_Q80,
    (FloatType.Q80, FloatType.Q80, FloatType.F32): OpQuantType.Q80_Q80_F32,
    (FloatType.Q80, FloatType.Q40, FloatType.F32): OpQuantType.Q80_Q40_F32,
    (FloatType.Q80, FloatType.F32, FloatType.F32): OpQuantType.Q80_F32_F32,
}


def op_quant_type(
    input_type: FloatType, weight_type: FloatType, output_type: FloatType
) -> OpQuantType | None:
    """Return the quant key of an op, or None where the protocol has none for these types.

    An op without a weight (``FloatType.UNK``) repeats its input's type, as C++ ``getOpQuantType`` does.
    """
    weight = input_type if weight_type is FloatType.UNK else weight_type
    return _QUANT_TYPES.get((input_type, weight, output_type))
