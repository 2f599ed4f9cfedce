"""An op's config, as its bytes are on the wire, turned into params: the recordings keep it in that form.

Only what recordings need: a few ``struct`` formats, so that the kit does without the protocol's parser.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from dllama_ops import params
from dllama_ops.tensor import Tensor
from dllama_proto.enums import OpCode, RopeType

__all__ = ["params_from_config"]

#: Turns config bytes and tensors (pipes, buffers, each in the order of their indexes) into params.
_Maker = Callable[[bytes, Sequence[Tensor], Sequence[Tensor]], params.OpParams]


def params_from_config(
    code: OpCode, config: bytes, pipes: Sequence[Tensor], buffers: Sequence[Tensor]
) -> params.OpParams:
    """Return the record of an op whose config has these bytes; indexes in it choose from the tensors."""
    return _MAKERS[code](config, pipes, buffers)


def _inv_rms(config: bytes, pipes: Sequence[Tensor], buffers: Sequence[Tensor]) -> params.OpParams:
    return params.InvRmsParams(*struct.unpack("<fI", config))


def _rms_norm(config: bytes, pipes: Sequence[Tensor], buffers: Sequence[Tensor]) -> params.OpParams:
    buffer, n_columns = struct.unpack("<II", config)
    return params.RmsNormParams(n_columns, buffers[buffer])


def _matmul(config: bytes, pipes: Sequence[Tensor], buffers: Sequence[Tensor]) -> params.OpParams:
    n_experts, n_active, buffer = struct.unpack("<III", config)
    return params.MatmulParams(n_experts, n_active, buffers[buffer] if n_active else None)


def _rope(config: bytes, pipes: Sequence[Tensor], buffers: Sequence[Tensor]) -> params.OpParams:
    kind, is_q, pipe, buffer, factor, low, high, orig = struct.unpack_from("<iIIIfffI", config)
    fields = struct.unpack_from("<11If", config, 32)
    q_dim0, _, q_dim_end, q_shift, _, kv_dim0, kv_dim_start, slice_dim, seq_len, head_dim, _, theta = fields
    falcon = RopeType(kind) is RopeType.FALCON
    return params.RopeParams(
        type=RopeType(kind),
        is_q=is_q == 1,
        positions=pipes[pipe],
        cache=buffers[buffer],
        scaling_factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        orig_max_seq_len=orig,
        q_dim0=q_dim0,
        kv_dim0=kv_dim0,
        kv_dim_start=0 if falcon else kv_dim_start,
        q_dim_end=0 if falcon else q_dim_end,
        q_shift=0 if falcon else q_shift,
        slice_dim=0 if falcon else slice_dim,
        seq_len=seq_len,
        head_dim=head_dim,
        rope_theta=theta,
    )


def _multihead_att(config: bytes, pipes: Sequence[Tensor], buffers: Sequence[Tensor]) -> params.OpParams:
    fields = struct.unpack("<12I", config)
    n_heads, n_heads0, n_kv_heads, head_dim, seq_len, _, kv_dim0, pipe, *indexes = fields
    query, keys, values, att = (buffers[buffer] for buffer in indexes)
    return params.MultiHeadAttParams(
        n_heads, n_heads0, n_kv_heads, head_dim, seq_len, kv_dim0, pipes[pipe], query, keys, values, att
    )


def _moe_gate(config: bytes, pipes: Sequence[Tensor], buffers: Sequence[Tensor]) -> params.OpParams:
    k, norm_topk, buffer = struct.unpack("<III", config)
    return params.MoeGateParams(k, norm_topk == 1, buffers[buffer])


def _u32(config: bytes) -> int:
    return int.from_bytes(config[:4], "little")


_MAKERS: Mapping[OpCode, _Maker] = MappingProxyType(
    {
        **dict.fromkeys(OpCode, lambda config, pipes, buffers: params.NoParams()),
        OpCode.INV_RMS: _inv_rms,
        OpCode.RMS_NORM: _rms_norm,
        OpCode.MATMUL: _matmul,
        OpCode.ROPE: _rope,
        OpCode.MULTIHEAD_ATT: _multihead_att,
        OpCode.MUL: lambda config, pipes, buffers: params.MulParams(buffers[_u32(config)]),
        OpCode.SCALE: lambda config, pipes, buffers: params.ScaleParams(buffers[_u32(config)]),
        OpCode.SHIFT: lambda config, pipes, buffers: params.ShiftParams(pipes[_u32(config)]),
        OpCode.MOE_GATE: _moe_gate,
    }
)
