"""Weights: a header announces each piece, whose bytes follow it; a name of length 0 ends them.

Written by ``NnRootWeightLoader::writeWeight`` and ``finish``, read by ``NnWorkerWeightReader::read``
(``nn-network.cpp``). The bytes themselves never pass through a schema.
"""

from __future__ import annotations

from dllama_proto.messages import WeightHeader
from dllama_proto.schemas.wire import U32, U64, Record, Text

__all__ = ["WEIGHTS_END_BYTES", "WEIGHT_HEADER"]

WEIGHT_HEADER = Record(
    WeightHeader,
    "name" / Text(limit="name_length", may_end=True),
    "op_index" / U32,
    "offset" / U64,
    "n_bytes" / U64,
)

#: What stands in place of the last header: the length of a name, 0.
WEIGHTS_END_BYTES = bytes(4)
