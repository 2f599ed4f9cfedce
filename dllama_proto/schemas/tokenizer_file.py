"""The .t tokenizer file: a header of pairs, the chat template, the end tokens, the vocabulary.

How long the parts after the header are is said by its pairs: ``TOKENIZER_FILE`` wants those lengths as context
(``parse(data, n_skipped=…, n_template=…, n_eos=…, n_tokens=…)``). Vocabularies have over a hundred thousand
tokens, so :mod:`dllama_proto.tokenizer_file` walks them without construct; a test holds the two ways equal.
"""

from __future__ import annotations

from enum import IntEnum

from construct import Array, Bytes, Const, Float32l, Int32sl, Int32ul, Rebuild, Struct, len_, this

__all__ = [
    "TOKENIZER_FILE",
    "TOKENIZER_HEADER",
    "TOKENIZER_MAGIC",
    "TOKENIZER_PAIR",
    "TOKENIZER_PREFIX",
    "TOKENIZER_TOKEN",
    "TokenizerKey",
]

#: First four bytes of every tokenizer file.
TOKENIZER_MAGIC = 0x567124


class TokenizerKey(IntEnum):
    """What a value of the header is (C++ ``TokenizerHeaderKey`` of ``tokenizer.hpp``)."""

    VERSION = 0
    VOCAB_SIZE = 1
    MAX_TOKEN_LENGTH = 2
    BOS_ID = 3
    #: One end token, of files older than ``N_EOS_TOKENS``.
    EOS_ID = 4
    #: Not used.
    PAD_ID = 5
    #: Another end token, of files older than ``N_EOS_TOKENS``.
    CHAT_EOS_ID = 6
    #: Length of the chat template in bytes.
    CHAT_TEMPLATE = 7
    #: Length of something after the header that is skipped.
    CHAT_STOP = 8
    N_EOS_TOKENS = 9
    ADD_BOS = 10


TOKENIZER_PREFIX = Struct("magic" / Int32ul, "header_size" / Int32ul)
"""The first bytes of a .t file. ``header_size`` counts them too.

Example, from a file::

    24715600 38000000  magic=0x00567124, header_size=56

Size in bytes: ``8``.

Written by ``writeTokenizer`` (``converter/tokenizer-writer.py``), read by ``Tokenizer::Tokenizer``
(``tokenizer.cpp``).
"""

TOKENIZER_PAIR = Struct("key" / Int32sl, "value" / Int32sl)
"""One entry of the header: a :class:`TokenizerKey` and its value.

Example, from a file::

    03000000 fe010000  key=BOS_ID, value=510

Size in bytes: ``8``.

Written by ``writeTokenizer`` (``converter/tokenizer-writer.py``), read by ``Tokenizer::Tokenizer``
(``tokenizer.cpp``).
"""

TOKENIZER_HEADER = Struct(
    "magic" / Const(TOKENIZER_MAGIC, Int32ul),
    "header_size"
    / Rebuild(Int32ul, TOKENIZER_PREFIX.sizeof() + TOKENIZER_PAIR.sizeof() * len_(this.pairs)),
    "pairs"
    / Array((this.header_size - TOKENIZER_PREFIX.sizeof()) // TOKENIZER_PAIR.sizeof(), TOKENIZER_PAIR),
)
"""The header of a .t file.

Example, from a file::

    24715600 38000000                    magic=0x00567124, header_size=56
    03000000 fe010000 00000000 01000000  key=BOS_ID, value=510, key=VERSION, value=1
    01000000 00020000 02000000 05000000  key=VOCAB_SIZE, value=512, key=MAX_TOKEN_LENGTH, value=5
    09000000 01000000 0a000000 01000000  key=N_EOS_TOKENS, value=1, key=ADD_BOS, value=1

Size in bytes: ``8 + 8 * len(pairs)``.

Written by ``writeTokenizer`` (``converter/tokenizer-writer.py``), read by ``Tokenizer::Tokenizer``
(``tokenizer.cpp``).
"""

TOKENIZER_TOKEN = Struct(
    "score" / Float32l,
    "length" / Rebuild(Int32ul, len_(this.piece)),
    "piece" / Bytes(this.length),
)
"""One token: its score, and its bytes without a NUL.

Example, a token of 4 bytes::

    0000c0bf 04000000 20746865  score=-1.5, length=4, piece

Size in bytes: ``8 + length``.

Written by ``writeTokenizer`` (``converter/tokenizer-writer.py``), read by ``Tokenizer::Tokenizer``
(``tokenizer.cpp``).
"""

TOKENIZER_FILE = Struct(
    "header" / TOKENIZER_HEADER,
    "skipped" / Bytes(this._params.n_skipped),
    "chat_template" / Bytes(this._params.n_template),
    "eos_ids" / Array(this._params.n_eos, Int32sl),
    "tokens" / Array(this._params.n_tokens, TOKENIZER_TOKEN),
)
"""A whole .t file; the lengths of its parts are said by its header.

Example, a file of two tokens, with ``n_skipped=0, n_template=2, n_eos=1, n_tokens=2``::

    24715600 38000000                    magic=0x00567124, header_size=56
    00000000 01000000 01000000 02000000  key=VERSION, value=1, key=VOCAB_SIZE, value=2
    02000000 03000000 03000000 01000000  key=MAX_TOKEN_LENGTH, value=3, key=BOS_ID, value=1
    07000000 02000000 09000000 01000000  key=CHAT_TEMPLATE, value=2, key=N_EOS_TOKENS, value=1, skipped
    7b7d 01000000                        chat_template, eos_ids=[1]
    00000000 01000000 61                 score=0.0, length=1, piece
    00000000 03000000 3c733e             score=0.0, length=3, piece

Size in bytes: ``size(header) + n_skipped + n_template + 4 * n_eos + size(tokens)``.

Written by ``writeTokenizer`` (``converter/tokenizer-writer.py``), read by ``Tokenizer::Tokenizer``
(``tokenizer.cpp``).
"""
