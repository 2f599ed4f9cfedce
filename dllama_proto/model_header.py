"""What a model is: the header of a .m file as a record, with defaults and derived dimensions.

Decides what each key means, which are required, and which values make a model that can exist. Source: C++
``loadLlmHeader`` (``llm.cpp``). Nothing here reads a file or allocates anything the header asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeVar

import numpy as np

from dllama_proto.enums import ArchType, FloatType, RopeType
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.floats import is_whole_blocks
from dllama_proto.formatting import counted
from dllama_proto.schemas.model_file import MODEL_PAIR, MODEL_PREFIX, ModelKey

__all__ = ["ArchType", "HiddenAct", "ModelHeader", "ModelKey"]


class HiddenAct(IntEnum):
    """Activation of the feed-forward block (C++ ``LlmHiddenAct``)."""

    GELU = 0
    SILU = 1


#: Tokens and positions travel as float32, which counts without gaps only up to here.
_MAX_COUNT = 1 << 24

#: Values are signed and have 32 bits.
_I32_END = 1 << 31

#: The header has no floats: the value stands for an exponent (C++ ``convertNormEpsilon``).
_NORM_EPSILON = {5: float(np.float32(1e-5)), 6: float(np.float32(1e-6))}


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """The shape of a model. Made by :meth:`from_pairs`; ``pairs`` are the file's own, in its order.

    ``seq_len`` is the context this run uses, ``orig_seq_len`` the model's. Floats have float32 precision, as they
    travel. A .m file has no more than its pairs; beyond them, ``logits_float_type`` is that of the classifier's
    weight, ``has_qkv_bias`` says that queries, keys and values have biases, and ``unrotated_layers`` are those
    without rotation.
    """

    version: int
    arch: ArchType
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_experts: int
    n_active_experts: int
    vocab_size: int
    seq_len: int
    orig_seq_len: int
    hidden_act: HiddenAct
    rope_theta: float
    weight_float_type: FloatType
    rope_scaling_factor: float
    rope_scaling_low_freq_factor: float
    rope_scaling_high_freq_factor: float
    rope_scaling_orig_max_seq_len: int
    rope_type: RopeType
    head_dim: int
    norm_epsilon: float
    moe_hidden_dim: int
    logits_float_type: FloatType
    has_qkv_bias: bool
    unrotated_layers: tuple[int, ...]
    pairs: tuple[tuple[ModelKey, int], ...]

    @classmethod
    def from_pairs(cls, pairs: Sequence[tuple[int, int]]) -> ModelHeader:
        """Read the pairs of a header; a key that comes twice counts as it comes last, as in C++.

        Raises RemoteProtocolError for an unknown key, a missing or impossible value.
        """
        values = _HeaderValues(pairs)
        arch = values.code(ModelKey.ARCH, ArchType)
        is_moe = arch is ArchType.QWEN3_MOE
        seq_len = values.count(ModelKey.SEQ_LEN)
        rope_type = values.code(ModelKey.ROPE_TYPE, RopeType, RopeType.LLAMA)
        header = cls(
            version=values.get(ModelKey.VERSION, 0),
            arch=arch,
            dim=values.count(ModelKey.DIM),
            # Models with experts only never use it.
            hidden_dim=values.size(ModelKey.HIDDEN_DIM) if is_moe else values.count(ModelKey.HIDDEN_DIM),
            n_layers=values.count(ModelKey.N_LAYERS),
            n_heads=values.count(ModelKey.N_HEADS),
            n_kv_heads=values.count(ModelKey.N_KV_HEADS),
            n_experts=values.size(ModelKey.N_EXPERTS),
            n_active_experts=values.size(ModelKey.N_ACTIVE_EXPERTS),
            vocab_size=values.count(ModelKey.VOCAB_SIZE),
            seq_len=seq_len,
            orig_seq_len=seq_len,
            hidden_act=values.code(ModelKey.HIDDEN_ACT, HiddenAct, HiddenAct.SILU),
            rope_theta=_f32(values.count(ModelKey.ROPE_THETA, 10000)),
            weight_float_type=values.code(ModelKey.WEIGHT_FLOAT_TYPE, FloatType),
            rope_scaling_factor=_f32(values.count(ModelKey.ROPE_SCALING_FACTOR, 1)),
            rope_scaling_low_freq_factor=_f32(values.size(ModelKey.ROPE_SCALING_LOW_FREQ_FACTOR)),
            rope_scaling_high_freq_factor=_f32(values.size(ModelKey.ROPE_SCALING_HIGH_FREQ_FACTOR)),
            rope_scaling_orig_max_seq_len=values.size(ModelKey.ROPE_SCALING_ORIG_MAX_SEQ_LEN),
            rope_type=rope_type if arch is ArchType.LLAMA else RopeType.FALCON,
            head_dim=values.size(ModelKey.HEAD_DIM),
            norm_epsilon=values.norm_epsilon(),
            moe_hidden_dim=values.size(ModelKey.MOE_HIDDEN_DIM),
            logits_float_type=values.code(ModelKey.WEIGHT_FLOAT_TYPE, FloatType),
            has_qkv_bias=False,
            unrotated_layers=(),
            pairs=tuple((ModelKey(key), value) for key, value in pairs),
        )
        if header.head_dim == 0:
            values.check(
                ModelKey.HEAD_DIM,
                header.dim % header.n_heads == 0,
                f"a head_dim, as dim {header.dim} is not a multiple of {counted(header.n_heads, 'head')}",
            )
            header = replace(header, head_dim=header.dim // header.n_heads)
        _check_shape(header, values)
        return header

    @property
    def q_dim(self) -> int:
        """Width of all query heads together."""
        return self.head_dim * self.n_heads

    @property
    def kv_dim(self) -> int:
        """Width of all key (or value) heads together."""
        return self.head_dim * self.n_kv_heads

    @property
    def kv_group(self) -> int:
        """Query heads that share one key-value head."""
        return self.n_heads // self.n_kv_heads

    @property
    def ff_dim(self) -> int:
        """Inner width of the feed-forward block; with experts, of one expert."""
        return self.moe_hidden_dim if self.is_moe else self.hidden_dim

    @property
    def is_moe(self) -> bool:
        """Whether the feed-forward block consists of experts."""
        return self.arch is ArchType.QWEN3_MOE

    @property
    def has_qk_norm(self) -> bool:
        """Whether queries and keys are normed head by head."""
        return self.arch is not ArchType.LLAMA

    @property
    def header_size(self) -> int:
        """Bytes before the first tensor."""
        return int(MODEL_PREFIX.sizeof()) + int(MODEL_PAIR.sizeof()) * len(self.pairs)

    def with_max_seq_len(self, max_seq_len: int) -> ModelHeader:
        """Return the same model with its context cut to at most ``max_seq_len``; 0 leaves it as it is."""
        if max_seq_len <= 0 or max_seq_len >= self.seq_len:
            return self
        return replace(self, seq_len=max_seq_len)

    def with_logits(self, float_type: FloatType) -> ModelHeader:
        """Return the same model with a classifier of F32 weights, or of those that all matmuls have.

        Raises ValueError for another type.
        """
        if float_type not in (FloatType.F32, self.weight_float_type):
            raise ValueError(f"expected F32 or {self.weight_float_type.name}, got {float_type.name}")
        return replace(self, logits_float_type=float_type)


_Code = TypeVar("_Code", bound=IntEnum)


class _HeaderValues:
    """The last value of each key and where it stands, with checks that name both."""

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._values: dict[ModelKey, int] = {}
        self._offsets: dict[ModelKey, int] = {}
        for i, (number, value) in enumerate(pairs):
            offset = int(MODEL_PREFIX.sizeof()) + int(MODEL_PAIR.sizeof()) * i
            try:
                key = ModelKey(number)
            except ValueError:
                raise RemoteProtocolError(
                    f"ModelHeader.pairs[{i}].key",
                    expected=f"a key from 0 to {max(ModelKey)}",
                    got=str(number),
                    offset=offset,
                    hint="the file is newer than this program, or damaged",
                ) from None
            self._values[key] = value
            self._offsets[key] = offset + 4
            self.check(key, -_I32_END <= value < _I32_END, "a number of 32 bits")

    def check(self, key: ModelKey, holds: bool, expected: str) -> None:
        """Raise RemoteProtocolError for the key's value unless ``holds``."""
        if not holds:
            raise self.fault(key, expected)

    def fault(self, key: ModelKey, expected: str) -> RemoteProtocolError:
        """Return the error that names the key's value and where it stands."""
        value = self._values.get(key)
        return RemoteProtocolError(
            f"ModelHeader.{key.name.lower()}",
            expected=expected,
            got="no such key" if value is None else str(value),
            offset=self._offsets.get(key),
        )

    def get(self, key: ModelKey, default: int | None = None) -> int:
        """Return a value as it stands; without a default the key is required."""
        value = self._values.get(key, default)
        if value is None:
            raise self.fault(key, "a value, as no model can do without")
        return value

    def size(self, key: ModelKey) -> int:
        """Return a value that may be missing or 0, but not negative."""
        value = self.get(key, 0)
        self.check(key, value >= 0, "0 or more")
        return value

    def count(self, key: ModelKey, default: int | None = None) -> int:
        """Return a value of at least 1."""
        value = self.get(key, default)
        self.check(key, value >= 1, "at least 1")
        return value

    def code(self, key: ModelKey, codes: type[_Code], default: _Code | None = None) -> _Code:
        """Return a value that is one of an enum's numbers."""
        value = self.get(key, default)
        try:
            return codes(value)
        except ValueError:
            known = ", ".join(f"{code:#x} {code.name}" for code in codes)
            raise self.fault(key, f"one of {known}") from None

    def norm_epsilon(self) -> float:
        """Return epsilon itself; the file holds its negated exponent."""
        value = self.get(ModelKey.NORM_EPSILON, 5)
        self.check(ModelKey.NORM_EPSILON, value in _NORM_EPSILON, "5 (for 1e-5) or 6 (for 1e-6)")
        return _NORM_EPSILON[value]


def _f32(value: int) -> float:
    return float(np.float32(value))


def _check_shape(header: ModelHeader, values: _HeaderValues) -> None:
    """Refuse dimensions that do not fit each other."""
    check = values.check
    check(ModelKey.VOCAB_SIZE, header.vocab_size <= _MAX_COUNT, f"at most {_MAX_COUNT}")
    check(ModelKey.SEQ_LEN, header.seq_len <= _MAX_COUNT, f"at most {_MAX_COUNT}")
    check(
        ModelKey.N_KV_HEADS,
        header.n_heads % header.n_kv_heads == 0,
        f"a divisor of {header.n_heads} query heads",
    )
    stored = header.weight_float_type
    check(ModelKey.WEIGHT_FLOAT_TYPE, stored is not FloatType.UNK, "a float type with storage")
    if header.is_moe:
        check(ModelKey.N_EXPERTS, header.n_experts >= 1, f"at least 1 with {header.arch.name}")
        check(ModelKey.MOE_HIDDEN_DIM, header.moe_hidden_dim >= 1, f"at least 1 with {header.arch.name}")
        check(
            ModelKey.N_ACTIVE_EXPERTS,
            1 <= header.n_active_experts <= header.n_experts,
            f"1 to {header.n_experts}, the number of experts",
        )
    else:
        check(ModelKey.N_EXPERTS, header.n_experts == 0, f"0 with {header.arch.name}")

    def check_blocks(key: ModelKey, n: int) -> None:
        check(
            key,
            is_whole_blocks(stored, n),
            f"rows of whole {stored.name} blocks, not of {counted(n, 'value')}",
        )

    check_blocks(ModelKey.DIM, header.dim)
    check(ModelKey.HEAD_DIM, header.head_dim % 2 == 0, "an even number, as rotation works on pairs")
    check_blocks(ModelKey.HEAD_DIM, header.q_dim)
    check_blocks(ModelKey.MOE_HIDDEN_DIM if header.is_moe else ModelKey.HIDDEN_DIM, header.ff_dim)
