"""The .t tokenizer file: a header of pairs, the chat template, the end tokens, the vocabulary.

Sources: C++ ``TokenizerHeaderKey`` and the constructor of ``Tokenizer`` (``tokenizer.hpp``,
``tokenizer.cpp``). How long the parts after the header are is said by its pairs: ``TOKENIZER_FILE`` wants
those lengths as context (``parse(data, n_skipped=…, n_template=…, n_eos=…, n_tokens=…)``). Vocabularies
have over a hundred thousand tokens, so :mod:`dllama_proto.tokenizer_file` walks them without construct; a
test holds the two ways equal.
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
    """What a value of the header is (C++ ``TokenizerHeaderKey``)."""

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

TOKENIZER_PAIR = Struct("key" / Int32sl, "value" / Int32sl)

TOKENIZER_HEADER = Struct(
    "magic" / Const(TOKENIZER_MAGIC, Int32ul),
    "header_size"
    / Rebuild(Int32ul, TOKENIZER_PREFIX.sizeof() + TOKENIZER_PAIR.sizeof() * len_(this.pairs)),
    "pairs"
    / Array((this.header_size - TOKENIZER_PREFIX.sizeof()) // TOKENIZER_PAIR.sizeof(), TOKENIZER_PAIR),
)

TOKENIZER_TOKEN = Struct(
    "score" / Float32l,
    "length" / Rebuild(Int32ul, len_(this.piece)),
    "piece" / Bytes(this.length),
)

TOKENIZER_FILE = Struct(
    "header" / TOKENIZER_HEADER,
    "skipped" / Bytes(this._params.n_skipped),
    "chat_template" / Bytes(this._params.n_template),
    "eos_ids" / Array(this._params.n_eos, Int32sl),
    "tokens" / Array(this._params.n_tokens, TOKENIZER_TOKEN),
)
