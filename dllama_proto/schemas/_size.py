"""The 40 bytes that describe a tensor; they are part of every configuration message.

Source: ``NnSize3D`` of ``nn-core.hpp``, which is sent as it lies in memory (it has no padding).
"""

from __future__ import annotations

from dllama_proto.enums import FloatType
from dllama_proto.messages import Size3D
from dllama_proto.schemas.wire import U32, U64, EnumField, Record

__all__ = ["SIZE_3D"]

SIZE_3D = Record(
    Size3D,
    "float_type" / EnumField(FloatType),
    "z" / U32,
    "y" / U32,
    "x" / U32,
    "length" / U64,
    "n_bytes" / U64,
    "n_bytes_xy" / U64,
)
