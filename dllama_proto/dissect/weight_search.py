"""Finding the next piece of a weight when the header of one was not captured.

Recorders drop packets most where most is sent: while weights stream. Their headers can be told from their data:
a header has the name and index of an op of the configuration, and a range that lies within that op's weight.
Numbers that happen to look so are one in 10 ** 20 or fewer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dllama_proto.limits import Limits
from dllama_proto.messages import WeightHeader
from dllama_proto.schemas.weights import WEIGHT_HEADER, WEIGHTS_END_BYTES
from dllama_proto.schemas.wire import build_exactly
from dllama_proto.verify import WeightKey, verify_weight_header

__all__ = ["WeightSearch"]

#: What follows a name: index, offset, size.
_FIXED = 4 + 8 + 8


class WeightSearch:
    """Looks for a header in bytes as they come; ``weights`` are those of the node, with their sizes."""

    def __init__(self, weights: Mapping[WeightKey, int], limits: Limits) -> None:
        self._weights = weights
        self._limits = limits
        names = sorted({name for name, _ in weights})
        heads = [self._head(name) for name in names]
        self._pattern = re.compile(b"|".join(map(re.escape, heads)) or b"(?!)", re.DOTALL)
        #: A header that begins in the last so many bytes may not be whole.
        self._longest = max(map(len, heads), default=0) + _FIXED
        self._kept = b""

    @staticmethod
    def _head(name: str) -> bytes:
        return build_exactly(WEIGHT_HEADER, WeightHeader(name, 0, 0, 0), "WeightHeader")[:-_FIXED]

    def look(self, data: bytes | memoryview) -> bytes | None:
        """Look at more bytes: return what begins with a header, or None where there is none yet.

        What may be the beginning of a header is kept, and looked at again with the next bytes.
        """
        kept = self._kept + bytes(data)
        at = 0
        while (match := self._pattern.search(kept, at)) is not None:
            start, end = match.span()
            if end + _FIXED > len(kept):
                self._kept = kept[start:]
                return None
            if self._is_header(kept[start : end + _FIXED]):
                self._kept = b""
                return kept[start:]
            at = start + 1
        self._kept = kept[max(0, len(kept) - self._longest + 1) :]
        return None

    @property
    def n_kept(self) -> int:
        """How many of the last bytes are kept."""
        return len(self._kept)

    def end(self) -> tuple[bytes, bool]:
        """Return what was kept, and whether it ends as all weights do: for when the worker has them all."""
        kept, self._kept = self._kept, b""
        return kept, kept.endswith(WEIGHTS_END_BYTES)

    def _is_header(self, data: bytes) -> bool:
        header = WEIGHT_HEADER.parse(data)
        return (
            header.n_bytes > 0
            and next(verify_weight_header(header, self._weights, self._limits), None) is None
        )
