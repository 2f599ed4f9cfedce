"""The .m model file: its header as bytes, and which tensor lies where.

The file is the header, then the tensors one after another, without names, in an order that follows from
the header (C++ ``loadLlmNetWeight``). Nothing here reads tensors: callers map the file and take the bytes
that a :class:`TensorEntry` points at. Tensors carry the names of the ops they are the weights of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from dllama_proto.enums import FloatType
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.file_kinds import HEAD_SIZE, recognise_file
from dllama_proto.floats import n_bytes
from dllama_proto.formatting import counted
from dllama_proto.model_header import ModelHeader
from dllama_proto.names import WeightName
from dllama_proto.schemas.model_file import MODEL_HEADER, MODEL_MAGIC, MODEL_PAIR, MODEL_PREFIX

__all__ = [
    "MODEL_PREFIX_SIZE",
    "TensorEntry",
    "check_file_size",
    "decode_model_header",
    "encode_model_header",
    "model_header_size",
    "read_model_header",
    "tensor_entries",
]

#: Bytes that tell how long the header is.
MODEL_PREFIX_SIZE: int = MODEL_PREFIX.sizeof()

#: Formats before this one, which C++ still tells apart.
_OLD_MAGICS = (0xABCD00, 0xABCD01)

#: Headers have a couple of dozen pairs; what claims many times that is no header.
_MAX_HEADER_SIZE = 4096


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A stored tensor: ``d`` rows of ``n`` values, ``n_bytes`` bytes from ``offset`` of the file.

    ``name`` and ``layer`` are those of the op whose weight it is; ``expert`` is None where there is none.
    """

    name: str
    layer: int
    expert: int | None
    float_type: FloatType
    d: int
    n: int
    offset: int
    n_bytes: int

    def __str__(self) -> str:
        expert = "" if self.expert is None else f", expert {self.expert}"
        return f"{self.name} of layer {self.layer}{expert} ({self.float_type.name} [{self.d}][{self.n}])"


def model_header_size(prefix: bytes) -> int:
    """Return how many bytes the header takes, from the file's first ``MODEL_PREFIX_SIZE``.

    Raises RemoteProtocolError where they cannot be the beginning of a model file; with more of the file, up to
    ``HEAD_SIZE`` bytes, it says what the file is instead.
    """
    if len(prefix) < MODEL_PREFIX_SIZE:
        kind = recognise_file(prefix)
        raise RemoteProtocolError(
            "ModelHeader.magic",
            expected=f"{MODEL_PREFIX_SIZE} bytes",
            got=f"{len(prefix)}",
            offset=0,
            hint="" if kind is None else f"{kind.name}: {kind.advice}",
        )
    head = MODEL_PREFIX.parse(prefix[:MODEL_PREFIX_SIZE])
    if head.magic != MODEL_MAGIC:
        raise _not_a_model(prefix, head.magic)
    n_pair_bytes = head.header_size - MODEL_PREFIX_SIZE
    if not 0 <= n_pair_bytes <= _MAX_HEADER_SIZE or n_pair_bytes % MODEL_PAIR.sizeof():
        raise RemoteProtocolError(
            "ModelHeader.header_size",
            expected=f"{MODEL_PREFIX_SIZE} + {MODEL_PAIR.sizeof()} a pair, at most {_MAX_HEADER_SIZE}",
            got=str(head.header_size),
            offset=4,
        )
    return int(head.header_size)


def _not_a_model(prefix: bytes, magic: int) -> RemoteProtocolError:
    kind = None if magic in _OLD_MAGICS else recognise_file(prefix)
    if magic in _OLD_MAGICS:
        hint = "an old model format, convert the model again"
    else:
        hint = "not a model file" + ("" if kind is None else f": {kind.advice}")
    return RemoteProtocolError(
        "ModelHeader.magic",
        expected=f"{MODEL_MAGIC:#010x}",
        got=f"{magic:#010x}" if kind is None else kind.name,
        offset=0,
        hint=hint,
    )


def read_model_header(file: IO[bytes]) -> ModelHeader:
    """Read the header of a model file from its beginning; says so where it is a file of another kind.

    Raises RemoteProtocolError naming the field and its offset, OSError.
    """
    head = file.read(HEAD_SIZE)
    return decode_model_header(head + file.read(max(0, model_header_size(head) - len(head))))


def decode_model_header(data: bytes) -> ModelHeader:
    """Decode the beginning of a model file; what follows the header is ignored.

    Raises RemoteProtocolError naming the field and its offset.
    """
    size = model_header_size(data)
    if len(data) < size:
        raise RemoteProtocolError(
            "ModelHeader.pairs",
            expected=f"{size} bytes of header",
            got=f"{len(data)}, {counted(size - len(data), 'byte')} missing",
            offset=len(data),
        )
    parsed = MODEL_HEADER.parse(data[:size])
    return ModelHeader.from_pairs([(pair.key, pair.value) for pair in parsed.pairs])


def encode_model_header(header: ModelHeader) -> bytes:
    """Encode a header: the bytes it was decoded from, or those of the pairs it was made of."""
    pairs = [{"key": int(key), "value": value} for key, value in header.pairs]
    return bytes(MODEL_HEADER.build({"pairs": pairs}))


def tensor_entries(header: ModelHeader) -> Iterator[TensorEntry]:
    """Yield every tensor in the order of the file. Lazy: a header may claim any number of layers."""
    offset = header.header_size
    for name, layer, expert, float_type, d, n in _shapes(header):
        size = n_bytes(float_type, d * n)
        yield TensorEntry(name, layer, expert, float_type, d, n, offset, size)
        offset += size


def check_file_size(header: ModelHeader, file_size: int) -> None:
    """Refuse a file that does not end where its last tensor does.

    Raises RemoteProtocolError naming the tensor and how many bytes are missing, or are too many.
    """
    end = header.header_size
    for entry in tensor_entries(header):
        end = entry.offset + entry.n_bytes
        if end > file_size:
            raise RemoteProtocolError(
                f"tensor {entry}",
                expected=f"{entry.n_bytes} bytes",
                got=f"{max(0, file_size - entry.offset)}, {counted(end - file_size, 'byte')} missing",
                offset=entry.offset,
                hint="the file is truncated",
            )
    if end < file_size:
        raise RemoteProtocolError(
            "ModelFile",
            expected=f"its end after {end} bytes",
            got=f"{counted(file_size - end, 'byte')} more",
            offset=end,
        )


_Shape = tuple[str, int, int | None, FloatType, int, int]


def _shapes(header: ModelHeader) -> Iterator[_Shape]:
    """Yield name, layer, expert, type, rows and columns of every tensor."""
    stored = header.weight_float_type
    yield WeightName.EMBEDDING, 0, None, FloatType.F32, header.vocab_size, header.dim
    for layer in range(header.n_layers):
        yield WeightName.Q, layer, None, stored, header.q_dim, header.dim
        yield WeightName.K, layer, None, stored, header.kv_dim, header.dim
        yield WeightName.V, layer, None, stored, header.kv_dim, header.dim
        if header.has_qkv_bias:
            yield WeightName.BIAS_Q, layer, None, FloatType.F32, 1, header.q_dim
            yield WeightName.BIAS_K, layer, None, FloatType.F32, 1, header.kv_dim
            yield WeightName.BIAS_V, layer, None, FloatType.F32, 1, header.kv_dim
        yield WeightName.WO, layer, None, stored, header.dim, header.q_dim
        if header.is_moe:
            yield WeightName.MOE_GATE, layer, None, FloatType.F32, header.n_experts, header.dim
        for expert in range(header.n_experts) if header.is_moe else (None,):
            yield WeightName.W1, layer, expert, stored, header.ff_dim, header.dim
            yield WeightName.W2, layer, expert, stored, header.dim, header.ff_dim
            yield WeightName.W3, layer, expert, stored, header.ff_dim, header.dim
        if header.has_qk_norm:
            yield WeightName.NORM_Q, layer, None, FloatType.F32, 1, header.head_dim
            yield WeightName.NORM_K, layer, None, FloatType.F32, 1, header.head_dim
        yield WeightName.NORM_0, layer, None, FloatType.F32, 1, header.dim
        yield WeightName.NORM_1, layer, None, FloatType.F32, 1, header.dim
    yield WeightName.FINAL_NORM, 0, None, FloatType.F32, 1, header.dim
    yield WeightName.LOGITS, 0, None, header.logits_float_type, header.vocab_size, header.dim
