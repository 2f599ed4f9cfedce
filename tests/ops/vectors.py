"""The recorded ops of tests/data/golden as cases, without the protocol's parser.

``ops-index.json`` says what the wire's config said; the op's own config is decoded here with ``struct``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dllama_ops import params
from dllama_ops.kernel import KernelKey
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_ops.testing import Memory, OpCase, View
from dllama_proto.enums import FloatType, OpCode, OpQuantType, RopeType

GOLDEN = Path(__file__).parent.parent / "data" / "golden"

_Record = Mapping[str, Any]
#: Turns config bytes and tensors (by list: pipes, buffers) into params.
_Maker = Callable[[bytes, list[Tensor], list[Tensor]], params.OpParams]


@cache
def index() -> Mapping[str, _Record]:
    """Return what ops-index.json says, by case."""
    return MappingProxyType(json.loads((GOLDEN / "ops-index.json").read_text()))


def names(key: KernelKey) -> list[str]:
    """Return the cases recorded for a key."""
    return [
        name
        for name, record in index().items()
        if (record["op"], record["quant"]) == (key.code.name, key.quant.name)
    ]


def load_case(name: str) -> OpCase:
    """Read one recorded case."""
    record = index()[name]
    with np.load(GOLDEN / "ops" / f"{name}.npz") as arrays:
        before = _contents(arrays, "before")
        after = _contents(arrays, "after")
        weight_bytes = arrays["weight_0"].tobytes() if "weight_0" in arrays else b""
    sizes = {f"pipe {pipe}": size["size"] for pipe, size in record["pipes"].items()} | {
        f"buffer {buffer}": size["size"] for buffer, size in record["buffers"].items()
    }
    config = bytes.fromhex(record["config_hex"])
    code = OpCode[record["op"]]

    def make_params(tensors: Mapping[str, Tensor]) -> params.OpParams:
        pipes = [tensors[f"pipe {pipe}"] for pipe in _by_index(record["pipes"])]
        buffers = [tensors[f"buffer {buffer}"] for buffer in _by_index(record["buffers"])]
        return _MAKERS[code](config, pipes, buffers)

    return OpCase(
        name=name,
        key=KernelKey(code, OpQuantType[record["quant"]]),
        n_batches=record["n_batches"],
        batch_size=record["batch_size"],
        memories={
            memory: Memory(
                FloatType(size["float_type"]), size["z"], size["y"], size["x"], contents=before[memory]
            )
            for memory, size in sizes.items()
        },
        input=_view(record, record["input"]),
        output=_view(record, record["output"]),
        params=make_params,
        weight=_weight(record["weight_size"]),
        weight_bytes=weight_bytes,
        expected=after,
    )


def _contents(arrays: Any, when: str) -> dict[str, bytes]:
    return {
        f"{source} {name}": arrays[f"{source}_{when}/{name}"].tobytes()
        for source in ("pipe", "buffer")
        for name in arrays[f"{source}s"].tolist()
    }


def _by_index(memories: Mapping[str, _Record]) -> list[str]:
    return sorted(memories, key=lambda name: int(memories[name]["index"]))


def _view(record: _Record, pointer: _Record) -> View:
    memory = f"{pointer['source']} {pointer['name']}"
    if pointer["type"] == "raw":
        return View(memory, raw=True)
    width = pointer["size"]["x"]
    if pointer["type"] == "batched_slice":
        return View(memory, (width * record["node_index"], width * (record["node_index"] + 1)))
    return View(memory)


def _weight(size: _Record) -> WeightSpec | None:
    float_type = FloatType(size["float_type"])
    return None if float_type is FloatType.UNK else WeightSpec(float_type, size["z"], size["y"], size["x"])


def _inv_rms(config: bytes, pipes: list[Tensor], buffers: list[Tensor]) -> params.OpParams:
    return params.InvRmsParams(*struct.unpack("<fI", config))


def _rms_norm(config: bytes, pipes: list[Tensor], buffers: list[Tensor]) -> params.OpParams:
    buffer, n_columns = struct.unpack("<II", config)
    return params.RmsNormParams(n_columns, buffers[buffer])


def _matmul(config: bytes, pipes: list[Tensor], buffers: list[Tensor]) -> params.OpParams:
    n_experts, n_active, buffer = struct.unpack("<III", config)
    return params.MatmulParams(n_experts, n_active, buffers[buffer] if n_active else None)


def _rope(config: bytes, pipes: list[Tensor], buffers: list[Tensor]) -> params.OpParams:
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


def _multihead_att(config: bytes, pipes: list[Tensor], buffers: list[Tensor]) -> params.OpParams:
    fields = struct.unpack("<12I", config)
    n_heads, n_heads0, n_kv_heads, head_dim, seq_len, _, kv_dim0, pipe, *indexes = fields
    query, keys, values, att = (buffers[buffer] for buffer in indexes)
    return params.MultiHeadAttParams(
        n_heads, n_heads0, n_kv_heads, head_dim, seq_len, kv_dim0, pipes[pipe], query, keys, values, att
    )


def _moe_gate(config: bytes, pipes: list[Tensor], buffers: list[Tensor]) -> params.OpParams:
    k, norm_topk, buffer = struct.unpack("<III", config)
    return params.MoeGateParams(k, norm_topk == 1, buffers[buffer])


def _u32(config: bytes) -> int:
    return int.from_bytes(config[:4], "little")


_MAKERS: Mapping[OpCode, _Maker] = {
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
