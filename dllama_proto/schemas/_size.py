"""The 40 bytes that describe a tensor; they are part of every configuration message."""

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
"""Type and shape of a tensor, of [z][y][x] values. It is sent as it lies in memory, and has no padding.

Example, from a recording::

    03000000 01000000 20000000 00010000                 float_type=Q80, z=1, y=32, x=256
    0020000000000000 0022000000000000 0022000000000000  length=8192, n_bytes=8704, n_bytes_xy=8704

Size in bytes: ``40``.

Written by ``NnRootConfigWriter::writeNet`` and ``writeNode``, read by ``NnWorkerConfigReader::readNet`` and
``readNode`` (``nn-network.cpp``); the struct is ``NnSize3D`` of ``nn-core.hpp``.
"""
