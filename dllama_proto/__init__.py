"""The Distributed-Llama wire protocol: what the nodes of a cluster say to each other.

The names here are the light tier: enums, float types, errors and the records; each is imported when it is first
used, and NumPy with the float types only. ``decode(NetConfig, data)`` and ``encode(record)`` take any message
alone, and load the parser when they are first used. What speaks is in named submodules, so that importing an
enum does not load a parser: :mod:`dllama_proto.connection` (root and worker), :mod:`dllama_proto.peer` (worker
and worker), :mod:`dllama_proto.sync_plan` (which bytes go where), :mod:`dllama_proto.limits`,
:mod:`dllama_proto.verify` and :mod:`dllama_proto.schemas`. :mod:`dllama_proto.testing` is for tests of nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dllama_proto.codec import decode, encode
    from dllama_proto.enums import (
        ArchType,
        FloatType,
        OpCode,
        OpQuantType,
        PointerSource,
        PointerType,
        RopeType,
        SyncType,
        op_quant_type,
    )
    from dllama_proto.errors import (
        LocalProtocolError,
        ProtocolError,
        RemoteProtocolError,
    )
    from dllama_proto.floats import (
        BLOCK_SIZE,
        Q40_BLOCK,
        Q80_BLOCK,
        SYNC_TYPES,
        bytes_to_values,
        dequantize_q40,
        dequantize_q80,
        f16_to_f32,
        f32_to_f16,
        is_whole_blocks,
        n_bytes,
        quantize_q40,
        quantize_q80,
        storage_dtype,
    )
    from dllama_proto.messages import (
        BufferConfig,
        ControlPacket,
        EmptyConfig,
        Greeting,
        InvRmsConfig,
        MatmulConfig,
        MoeGateConfig,
        MulConfig,
        MultiHeadAttConfig,
        NetConfig,
        NodeConfig,
        OpConfig,
        OpParams,
        Peer,
        PipeConfig,
        Pointer,
        PreSyncConfig,
        Refusal,
        RmsNormConfig,
        RopeConfig,
        RopeSlice,
        ScaleConfig,
        SegmentConfig,
        ShiftConfig,
        Size3D,
        SyncConfig,
        WeightHeader,
    )

    __version__: str

__all__ = [
    "ArchType",
    "BLOCK_SIZE",
    "BufferConfig",
    "ControlPacket",
    "EmptyConfig",
    "FloatType",
    "Greeting",
    "InvRmsConfig",
    "LocalProtocolError",
    "MatmulConfig",
    "MoeGateConfig",
    "MulConfig",
    "MultiHeadAttConfig",
    "NetConfig",
    "NodeConfig",
    "OpCode",
    "OpConfig",
    "OpParams",
    "OpQuantType",
    "Peer",
    "PipeConfig",
    "Pointer",
    "PointerSource",
    "PointerType",
    "PreSyncConfig",
    "ProtocolError",
    "Q40_BLOCK",
    "Q80_BLOCK",
    "Refusal",
    "RemoteProtocolError",
    "RmsNormConfig",
    "RopeConfig",
    "RopeSlice",
    "RopeType",
    "SYNC_TYPES",
    "ScaleConfig",
    "SegmentConfig",
    "ShiftConfig",
    "Size3D",
    "SyncConfig",
    "SyncType",
    "WeightHeader",
    "bytes_to_values",
    "decode",
    "dequantize_q40",
    "dequantize_q80",
    "encode",
    "f16_to_f32",
    "f32_to_f16",
    "is_whole_blocks",
    "n_bytes",
    "op_quant_type",
    "quantize_q40",
    "quantize_q80",
    "storage_dtype",
]

#: Where the names are. NumPy comes with the float types, construct with the last.
_HOMES = ("enums", "errors", "messages", "floats", "codec")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a command's help must not wait for NumPy."""
    if name == "__version__":
        from dllama_proto.version import installed_version

        return installed_version()
    if name in __all__:
        from importlib import import_module

        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if name in module.__all__:
                value = globals()[name] = getattr(module, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
