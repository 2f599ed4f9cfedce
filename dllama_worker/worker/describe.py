"""What a node config tells about the model, for people: the wire carries ops and sizes, not a model header."""

from __future__ import annotations

from collections.abc import Iterator

from dllama_proto.enums import OpCode, RopeType
from dllama_proto.messages import (
    MatmulConfig,
    MultiHeadAttConfig,
    NetConfig,
    NodeConfig,
    OpConfig,
    RopeConfig,
)
from dllama_proto.names import MARK_PIPE, Pipe, WeightName

__all__ = ["describe_model", "is_probe"]


def describe_model(net: NetConfig, node: NodeConfig) -> dict[str, str]:
    """Return what can be told, by name, in the order to show it; what the config doesn't say is left out."""
    rows: dict[str, str] = {"nodes": f"{net.n_nodes}, this is node {node.node_index}"}
    rows |= dict(_attention(node))
    rows |= dict(_feed_forward(net, node))
    pipes = {pipe.name: pipe for pipe in net.pipes}
    if Pipe.X.name in pipes:
        rows["dim"] = str(pipes[Pipe.X.name].size.x)
    if Pipe.LG.name in pipes:
        rows["vocab_size"] = str(pipes[Pipe.LG.name].size.x)
    if Pipe.ZQ.name in pipes:
        rows["sync float type"] = pipes[Pipe.ZQ.name].size.float_type.name.lower()
    rows["n_batches"] = str(net.n_batches)
    return rows


def is_probe(net: NetConfig) -> bool:
    """Tell whether a session measures nodes: its forwards evaluate no tokens."""
    return any(pipe.name == MARK_PIPE for pipe in net.pipes)


def _ops(node: NodeConfig, code: OpCode) -> Iterator[OpConfig]:
    return (op for segment in node.segments for op in segment.ops if op.code is code)


def _attention(node: NodeConfig) -> Iterator[tuple[str, str]]:
    layers = list(_ops(node, OpCode.MULTIHEAD_ATT))
    if not layers:
        return
    config = layers[0].config
    if isinstance(config, MultiHeadAttConfig):
        yield "n_layers", str(len({op.index for op in layers}))
        yield "n_heads", f"{config.n_heads}, {config.n_heads0} of them here"
        yield "n_kv_heads", f"{config.n_kv_heads}, {config.kv_dim0 // max(1, config.head_dim)} of them here"
        yield "head_dim", str(config.head_dim)
        yield "seq_len", str(config.seq_len)
    for op in _ops(node, OpCode.ROPE):
        if isinstance(op.config, RopeConfig):
            theta = op.config.slice.rope_theta
            scaled = op.config.type is RopeType.LLAMA3_1
            factor = f", scaled by {op.config.scaling_factor:g}" if scaled else ""
            yield "rope", f"{op.config.type.name.lower()}, theta {theta:g}{factor}"
            return


def _feed_forward(net: NetConfig, node: NodeConfig) -> Iterator[tuple[str, str]]:
    for op in _ops(node, OpCode.MATMUL):
        if op.name != WeightName.W1:
            continue
        yield "hidden_dim", f"{op.weight_size.x} of it here"
        if isinstance(op.config, MatmulConfig) and op.config.n_experts:
            yield "n_experts", f"{op.config.n_experts}, {op.config.n_active_experts} of them active"
        yield "weight float type", op.weight_size.float_type.name.lower()
        return
