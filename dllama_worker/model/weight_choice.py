"""Which float types a model's weights are loaded as, where its file has them otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dllama_ops.quantization.ggml_types import GgmlType
from dllama_proto.enums import FloatType
from dllama_proto.formatting import format_bytes
from dllama_worker.model.open_options import WeightChoice
from dllama_worker.model.stored_tensor import StoredTensor, as_stored

__all__ = ["choose_logits", "choose_weights", "tell_conversions"]

#: With more bits a weight, quantising to 4.5 would lose much of what the file has.
_FEW_BITS = 5.0

#: The largest classifier that is kept in F32 by itself: in small models its quantisation costs most, in large ones
#: F32 would cost much time and memory.
_MAX_F32_LOGITS = 256 << 20


def choose_weights(tensors: Iterable[StoredTensor], choice: WeightChoice) -> FloatType:
    """Return the type of all matmuls of the layers, from how they are stored.

    By itself: Q40 where values take up to 5 bits, else F32, which loses nothing.
    """
    if choice is not WeightChoice.AUTO:
        return FloatType[choice.name]
    n_values = n_bits = 0
    for tensor in tensors:
        n_values += tensor.d * tensor.n
        n_bits += 8 * tensor.n_bytes
    return FloatType.Q40 if n_bits <= _FEW_BITS * n_values else FloatType.F32


def choose_logits(classifier: StoredTensor, weights: FloatType, choice: WeightChoice) -> FloatType:
    """Return the type of the classifier's weight beside matmuls of ``weights``.

    By itself: F32 where it is stored in more than 4 bits and small.
    """
    if choice is not WeightChoice.AUTO:
        return FloatType[choice.name] if weights is not FloatType.F32 else FloatType.F32
    if as_stored(classifier.ggml_type) is weights:
        return weights
    return FloatType.F32 if 4 * classifier.d * classifier.n <= _MAX_F32_LOGITS else weights


def tell_conversions(tensors: Iterable[tuple[StoredTensor, FloatType]]) -> str:
    """Return what becomes of the stored matrices, for people; empty where all are the same as they are stored."""
    sizes: Counter[tuple[GgmlType, FloatType]] = Counter()
    for tensor, float_type in tensors:
        sizes[tensor.ggml_type, float_type] += tensor.n_bytes
    return ", ".join(
        f"{stored.name} {_verb(stored, float_type)} {float_type.name} ({format_bytes(n_bytes)})"
        for (stored, float_type), n_bytes in sizes.most_common()
        if as_stored(stored) is not float_type
    )


def _verb(stored: GgmlType, float_type: FloatType) -> str:
    return "exactly as" if float_type is FloatType.F32 else "requantised to"
