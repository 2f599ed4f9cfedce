"""Weights: a header announces each piece, whose bytes follow it; a name of length 0 ends them.

The bytes themselves never pass through a schema.
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
"""Announces a piece of a weight. ``n_bytes`` bytes of the weight follow.

Example, from a recording::

    0f000000 626c6f636b5f6d61746d756c5f7100  name="block_matmul_q"
    00000000 0000000000000000                op_index=0, offset=0
    0012000000000000                         n_bytes=4608

Size in bytes: ``25 + len(name)``.

Written by ``NnRootWeightLoader::writeWeight``, read by ``NnWorkerWeightReader::read`` (``nn-network.cpp``).
"""

WEIGHTS_END_BYTES = bytes(4)
"""What stands in place of the last header: the length of a name, 0. The worker answers with an ack.

Example, the same in every session::

    00000000

Size in bytes: ``4``.

Written by ``NnRootWeightLoader::finish``, read by ``NnWorkerWeightReader::read`` (``nn-network.cpp``).
"""
