"""What a file or folder of another project says of its model, in the words of a .m header.

Formats name the same facts differently; each turns its own into a :class:`ModelDescription`. Key order and what is
left out are those of the C++ project's ``convert-hf.py``, so a converted file is the same to the last byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from dllama_proto.enums import ArchType, FloatType, RopeType
from dllama_proto.model_header import HiddenAct, ModelHeader, ModelKey
from dllama_proto.names import WeightName

__all__ = ["Llama3Scaling", "ModelDescription", "granite_scales"]

#: The exponents that a header can say (C++ ``convertNormEpsilon``), by what they stand for.
_EPSILONS = {float(np.float32(1e-5)): 5, float(np.float32(1e-6)): 6}

_DEFAULT_EPSILON = float(np.float32(1e-5))


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """How Llama 3.1 stretches its rotations."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    orig_max_seq_len: int


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The shape of a model. None stands for what the format does not say and a header can leave out.

    ``scales`` are factors that all values of a weight are multiplied by when they are loaded, by its name.
    """

    arch: ArchType
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int
    hidden_act: HiddenAct = HiddenAct.SILU
    n_experts: int = 0
    n_active_experts: int = 0
    moe_hidden_dim: int | None = None
    rope_theta: float | None = None
    rope_scaling: Llama3Scaling | None = None
    head_dim: int | None = None
    norm_epsilon: float | None = None
    rope_type: RopeType = RopeType.LLAMA
    has_qkv_bias: bool = False
    unrotated_layers: tuple[int, ...] = ()
    scales: Mapping[str, float] = field(default_factory=dict)

    def header(self, weights: FloatType) -> ModelHeader:
        """Return the header of this model with weights of a type.

        What the numbers of a .m header can't say exactly, this header still does: nodes get it as floats. Raises
        RemoteProtocolError naming a value that no model can have.
        """
        header = ModelHeader.from_pairs(list(self._pairs(weights)))
        if self.rope_theta is not None:
            header = replace(header, rope_theta=float(np.float32(self.rope_theta)))
        if self.norm_epsilon is not None:
            header = replace(header, norm_epsilon=float(np.float32(self.norm_epsilon)))
        return replace(header, has_qkv_bias=self.has_qkv_bias, unrotated_layers=self.unrotated_layers)

    def not_exact(self) -> str:
        """Return what a .m file can't say of this model, empty where it can say everything."""
        if self.has_qkv_bias:
            return "biases, which a .m file has no place for"
        if self.unrotated_layers:
            return "layers without rotation, which a .m file has no place for"
        scaling = self.rope_scaling
        numbers = {"rope theta": self.rope_theta}
        if scaling is not None:
            numbers["rope scaling factor"] = scaling.factor
            numbers["rope scaling low frequency factor"] = scaling.low_freq_factor
            numbers["rope scaling high frequency factor"] = scaling.high_freq_factor
        for name, number in numbers.items():
            if number is not None and not float(number).is_integer():
                return f"{name} {number:g}, where a .m file has a whole number"
        if self.norm_epsilon is not None and float(np.float32(self.norm_epsilon)) not in _EPSILONS:
            return f"norm epsilon {self.norm_epsilon:g}, where a .m file has 1e-5 or 1e-6"
        return ""

    def _pairs(self, weights: FloatType) -> Iterator[tuple[ModelKey, int]]:
        """Yield keys and values in the order of the converter."""
        yield ModelKey.VERSION, 0
        yield ModelKey.ARCH, self.arch
        yield ModelKey.HIDDEN_ACT, self.hidden_act
        yield ModelKey.DIM, self.dim
        yield ModelKey.HIDDEN_DIM, self.hidden_dim
        yield ModelKey.N_LAYERS, self.n_layers
        yield ModelKey.N_HEADS, self.n_heads
        yield ModelKey.N_KV_HEADS, self.n_kv_heads
        yield ModelKey.WEIGHT_FLOAT_TYPE, weights
        yield ModelKey.SEQ_LEN, self.seq_len
        yield ModelKey.VOCAB_SIZE, self.vocab_size
        yield ModelKey.N_EXPERTS, self.n_experts
        yield ModelKey.N_ACTIVE_EXPERTS, self.n_active_experts
        if self.rope_theta is not None:
            yield ModelKey.ROPE_THETA, max(1, math.floor(self.rope_theta))
        if (scaling := self.rope_scaling) is not None:
            yield ModelKey.ROPE_SCALING_FACTOR, math.floor(scaling.factor)
            yield ModelKey.ROPE_SCALING_LOW_FREQ_FACTOR, math.floor(scaling.low_freq_factor)
            yield ModelKey.ROPE_SCALING_HIGH_FREQ_FACTOR, math.floor(scaling.high_freq_factor)
            yield ModelKey.ROPE_SCALING_ORIG_MAX_SEQ_LEN, scaling.orig_max_seq_len
            yield ModelKey.ROPE_TYPE, RopeType.LLAMA3_1
        elif self.arch is ArchType.LLAMA and self.rope_type is not RopeType.LLAMA:
            yield ModelKey.ROPE_TYPE, self.rope_type
        if self.head_dim is not None:
            yield ModelKey.HEAD_DIM, self.head_dim
        if self.norm_epsilon is not None:
            epsilon = float(np.float32(self.norm_epsilon))
            yield ModelKey.NORM_EPSILON, _EPSILONS.get(epsilon, _EPSILONS[_DEFAULT_EPSILON])
        if self.moe_hidden_dim is not None:
            yield ModelKey.MOE_HIDDEN_DIM, self.moe_hidden_dim


def granite_scales(
    embedding: float, attention: float, residual: float, logits: float, head_dim: int
) -> Mapping[str, float]:
    """Return the factors of weights that stand for those of Granite's activations.

    Scores are divided by the root of ``head_dim`` by every node, whatever ``attention`` is; so queries make up for
    it.
    """
    return MappingProxyType(
        {
            WeightName.EMBEDDING: embedding,
            WeightName.Q: attention * math.sqrt(head_dim),
            WeightName.WO: residual,
            WeightName.W2: residual,
            WeightName.LOGITS: 1 / logits,
        }
    )
