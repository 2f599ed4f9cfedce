"""The ops of one layer of a model, and of its end, each with its work: products and bytes.

What is measured is a node that holds the whole model with Q40 weights, exchanging Q80.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dllama_ops import params
from dllama_ops.kernel import KernelKey, OpContext
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType, OpCode, OpQuantType, RopeType, op_quant_type
from dllama_proto.floats import n_bytes, quantize_q80
from dllama_proto.model_shapes import ModelShape

__all__ = ["Workload", "workloads"]

_F32, _Q40, _Q80, _NONE = FloatType.F32, FloatType.Q40, FloatType.Q80, FloatType.UNK


@dataclass(frozen=True, slots=True)
class Workload:
    """An op on a model's shape: ``products`` multiplications, ``weight_bytes`` and ``row_bytes`` moved."""

    name: str
    key: KernelKey
    batch_size: int
    products: int
    weight_bytes: int
    row_bytes: int
    make: Callable[[int], OpContext]

    @property
    def total_bytes(self) -> int:
        """Bytes that have to move at least once."""
        return self.weight_bytes + self.row_bytes


def workloads(model: ModelShape, batch_size: int, position: int) -> Iterator[Workload]:
    """Yield the ops of a layer and of the logits, for rows at ``position``."""
    maker = _Maker(batch_size, position)
    dim, hidden, z = model.dim, model.ff_dim, max(model.n_active_experts, 1)
    experts = model.n_experts, model.n_active_experts
    plain = 0, 0
    yield maker.simple("merge", OpCode.MERGE_ADD, _Q80, _F32, 2 * dim, dim)
    yield maker.norm("norm", dim)
    yield maker.simple("quantise", OpCode.CAST, _F32, _Q80, dim, dim)
    yield maker.matmul("q", dim, model.q_dim, plain)
    yield maker.matmul("k, v", dim, model.kv_dim, plain)
    yield maker.rope("rope q", model.q_dim, model.head_dim)
    yield maker.attention("attention", model)
    yield maker.matmul("wo", model.q_dim, dim, plain)
    yield maker.matmul("w1, w3", dim, hidden, experts)
    yield maker.simple("silu", OpCode.SILU, _F32, _F32, hidden, hidden, z)
    yield maker.multiply("multiply", hidden, z)
    yield maker.matmul("w2", hidden, dim, experts)
    yield maker.matmul("logits", dim, model.vocab_size, plain)


class _Maker:
    """Lays out memory for one op after the other, all with random numbers."""

    def __init__(self, batch_size: int, position: int) -> None:
        self._batch_size = batch_size
        self._position = position

    def simple(
        self,
        name: str,
        code: OpCode,
        source: FloatType,
        target: FloatType,
        x_in: int,
        x_out: int,
        z: int = 1,
    ) -> Workload:
        """Make an op without weight and parameters; in place where types and widths are the same."""

        def make(n_threads: int) -> OpContext:
            read = self._rows(source, z, x_in)
            in_place = source is target and code is not OpCode.CAST
            written = read if in_place else self._rows(target, z, x_out)
            return self._context(name, code, read, written, None, params.NoParams(), n_threads)

        moved = self._batch_size * z * (n_bytes(source, x_in) + n_bytes(target, x_out))
        products = self._batch_size * z * x_in
        return Workload(name, _key(code, source, _NONE, target), self._batch_size, products, 0, moved, make)

    def norm(self, name: str, x: int) -> Workload:
        """Make an RMS_NORM."""

        def make(n_threads: int) -> OpContext:
            record = params.RmsNormParams(1, self._rows(_F32, 1, 1))
            spec = WeightSpec(_F32, 1, 1, x)
            rows = self._rows(_F32, 1, x), self._rows(_F32, 1, x)
            return self._context(name, OpCode.RMS_NORM, *rows, spec, record, n_threads)

        key = _key(OpCode.RMS_NORM, _F32, _F32, _F32)
        return Workload(
            name, key, self._batch_size, 2 * x * self._batch_size, 4 * x, 8 * x * self._batch_size, make
        )

    def multiply(self, name: str, x: int, z: int) -> Workload:
        """Make a MUL."""

        def make(n_threads: int) -> OpContext:
            # Not in place: the same numbers multiplied again and again would soon be no numbers.
            rows = self._rows(_F32, z, x), self._rows(_F32, z, x)
            record = params.MulParams(self._rows(_F32, z, x))
            return self._context(name, OpCode.MUL, *rows, None, record, n_threads)

        n = self._batch_size * z * x
        return Workload(name, _key(OpCode.MUL, _F32, _NONE, _F32), self._batch_size, n, 0, 12 * n, make)

    def matmul(self, name: str, n: int, d: int, experts: tuple[int, int]) -> Workload:
        """Make a MATMUL; each row goes to other experts, in turn."""
        n_experts, active = experts
        z = max(active, 1)

        def make(n_threads: int) -> OpContext:
            chosen = None
            if active:
                numbers = np.arange(self._batch_size * active, dtype=np.float32) % n_experts
                chosen = Tensor(_F32, numbers.reshape(1, self._batch_size, active))
            record = params.MatmulParams(n_experts, active, chosen)
            spec = WeightSpec(_Q40, max(n_experts, 1), n, d)
            rows = self._rows(_Q80, z, n), self._rows(_F32, z, d)
            return self._context(name, OpCode.MATMUL, *rows, spec, record, n_threads)

        used = min(self._batch_size * z, n_experts) if n_experts else 1
        moved = self._batch_size * z * (n_bytes(_Q80, n) + 4 * d)
        products = self._batch_size * z * n * d
        key = _key(OpCode.MATMUL, _Q80, _Q40, _F32)
        return Workload(name, key, self._batch_size, products, used * n_bytes(_Q40, n * d), moved, make)

    def rope(self, name: str, x: int, head_dim: int) -> Workload:
        """Make a ROPE of the Llama kind."""
        seq_len = self._position + 1

        def make(n_threads: int) -> OpContext:
            rows = self._rows(_F32, 1, x)
            cache = Tensor(_F32, np.zeros((1, seq_len, x), np.float32))
            record = params.RopeParams(
                type=RopeType.LLAMA,
                is_q=True,
                positions=self._positions(),
                cache=cache,
                scaling_factor=1.0,
                low_freq_factor=0.0,
                high_freq_factor=0.0,
                orig_max_seq_len=0,
                q_dim0=x,
                kv_dim0=x,
                kv_dim_start=0,
                q_dim_end=x,
                q_shift=0,
                slice_dim=x,
                seq_len=seq_len,
                head_dim=head_dim,
                rope_theta=10_000.0,
            )
            return self._context(name, OpCode.ROPE, rows, rows, None, record, n_threads)

        n = self._batch_size * x
        return Workload(
            name, _key(OpCode.ROPE, _F32, _NONE, _F32), self._batch_size, 2 * n, 0, 12 * n, make
        )

    def attention(self, name: str, model: ModelShape) -> Workload:
        """Make a MULTIHEAD_ATT over all positions up to this one."""
        length = self._position + 1

        def make(n_threads: int) -> OpContext:
            out = self._rows(_F32, 1, model.q_dim)
            caches = [
                Tensor(
                    _F32, np.random.default_rng(i).standard_normal((1, length, model.kv_dim), np.float32)
                )
                for i in range(2)
            ]
            record = params.MultiHeadAttParams(
                n_heads=model.n_heads,
                n_heads0=model.n_heads,
                n_kv_heads=model.n_kv_heads,
                head_dim=model.head_dim,
                seq_len=length,
                kv_dim0=model.kv_dim,
                positions=self._positions(),
                query=self._rows(_F32, 1, model.q_dim),
                key_cache=caches[0],
                value_cache=caches[1],
                att=self._rows(_F32, 1, model.n_heads * length),
            )
            return self._context(name, OpCode.MULTIHEAD_ATT, out, out, None, record, n_threads)

        products = 2 * self._batch_size * model.q_dim * length
        moved = 8 * length * model.kv_dim + 8 * self._batch_size * model.q_dim
        key = _key(OpCode.MULTIHEAD_ATT, _F32, _NONE, _F32)
        return Workload(name, key, self._batch_size, products, 0, moved, make)

    def _positions(self) -> Tensor:
        return Tensor(_F32, np.full((1, self._batch_size, 1), self._position, np.float32))

    def _rows(self, float_type: FloatType, z: int, x: int) -> Tensor:
        values = np.random.default_rng(x).standard_normal((z, self._batch_size, x), np.float32)
        return Tensor(float_type, quantize_q80(values) if float_type is _Q80 else values)

    def _context(
        self,
        name: str,
        code: OpCode,
        source: Tensor,
        target: Tensor,
        weight: WeightSpec | None,
        record: params.OpParams,
        n_threads: int,
    ) -> OpContext:
        key = _key(code, source.float_type, weight.float_type if weight else _NONE, target.float_type)
        return OpContext(key, name, 0, self._batch_size, n_threads, source, target, weight, record)


def _key(code: OpCode, source: FloatType, weight: FloatType, target: FloatType) -> KernelKey:
    quant: OpQuantType | None = op_quant_type(source, weight, target)
    if quant is None:
        raise ValueError(f"{code.name} has no key for {source.name}, {weight.name}, {target.name}")
    return KernelKey(code, quant)
