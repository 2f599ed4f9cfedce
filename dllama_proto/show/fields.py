"""The fields of messages for people: configurations as trees, and every field with its bytes.

``-v`` shows a message as a tree in which ops say what they compute and pointers have names; ``-x`` shows each
field beside the bytes it was read from, as the schemas place them.
"""

from __future__ import annotations

from collections.abc import Iterator

from dllama_proto.dissect.events import MessageEvent, WeightEvent, WireEvent
from dllama_proto.enums import PointerSource
from dllama_proto.events import Ack, WeightsEnd
from dllama_proto.formatting import counted, format_bytes
from dllama_proto.messages import (
    EmptyConfig,
    NetConfig,
    NodeConfig,
    OpConfig,
    Refusal,
)
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.layout import field_spans
from dllama_proto.schemas.op_configs import OPS
from dllama_proto.show.json_form import plain
from dllama_proto.show.labels import pointer_text, quant_key_text, shape_text
from dllama_proto.terminal import Tree

__all__ = ["config_tree", "hex_lines", "message_tree"]

_BYTES_A_LINE = 16


def message_tree(event: MessageEvent | WeightEvent, net: NetConfig | None) -> Tree | None:
    """Return the fields of a message as a tree; None where one line has said it all.

    ``net`` is the net config of the session, which has the names of pipes.
    """
    message = event.header if isinstance(event, WeightEvent) else event.message
    match message:
        case NodeConfig():
            return config_tree(message, net)
        case NetConfig():
            tree = Tree(f"n_batches {message.n_batches}, n_nodes {message.n_nodes}")
            pipes = tree.add("pipes")
            for index, pipe in enumerate(message.pipes):
                pipes.add(
                    f"{index} {pipe.name}: {shape_text(pipe.size)}, {format_bytes(pipe.size.n_bytes)}"
                )
            pre = tree.add("pre_syncs")
            for pre_sync in message.pre_syncs:
                pre.add(f"pipe {message.pipes[pre_sync.pipe_index].name}")
            return tree
        case Ack() | Refusal() | WeightsEnd():
            return None
        case _:
            tree = Tree("fields")
            for name, value in plain(message).items():
                tree.add(f"{name}: {value}")
            return tree


def config_tree(node: NodeConfig, net: NetConfig | None) -> Tree:
    """Return a node config as a tree: buffers, then segment by segment ops and syncs."""
    tree = Tree(f"node {node.node_index}")
    buffers = tree.add(counted(len(node.buffers), "buffer"))
    for index, buffer in enumerate(node.buffers):
        buffers.add(
            f"{index} {buffer.name}: {shape_text(buffer.size)}, {format_bytes(buffer.size.n_bytes)}"
        )
    for index, segment in enumerate(node.segments):
        branch = tree.add(f"segment {index}")
        for op in segment.ops:
            _add_op(branch, op, net, node)
        for sync in segment.syncs:
            pipe = net.pipes[sync.pipe_index].name if net is not None else str(sync.pipe_index)
            branch.add(f"sync pipe {pipe}: {sync.sync_type.name.lower().replace('_', ' ')}")
    return tree


def _add_op(branch: Tree, op: OpConfig, net: NetConfig | None, node: NodeConfig) -> None:
    twig = branch.add(f"{op.code.name} {quant_key_text(op, net, node)} {op.name} {op.index}")
    twig.add(f"input: {pointer_text(op.input, net, node)}")
    twig.add(f"output: {pointer_text(op.output, net, node)}")
    if op.weight_size.n_bytes:
        twig.add(f"weight: {shape_text(op.weight_size)}, {format_bytes(op.weight_size.n_bytes)}")
    if not isinstance(op.config, EmptyConfig):
        values = ", ".join(f"{name} {text}" for name, text in _params(op, net, node))
        twig.add(f"config: {values}")


def _params(op: OpConfig, net: NetConfig | None, node: NodeConfig) -> Iterator[tuple[str, str]]:
    names = dict(_index_names(op, net, node))
    for name, value in plain(op.config).items():
        if name in names:
            yield name, f"{value} ({names[name]})"
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", str(part)) for inner, part in value.items())
        else:
            yield name, str(value)


def _index_names(op: OpConfig, net: NetConfig | None, node: NodeConfig) -> Iterator[tuple[str, str]]:
    """Yield the names of the pipes and buffers that the fields of a config are numbers of."""
    for name, source, number in OPS.get(op.code).indexes(op.config):
        holders = node.buffers if source is PointerSource.BUFFER else net.pipes if net is not None else ()
        if number < len(holders):
            yield name, holders[number].name


# Bytes ------------------------------------------------------------------------------------------------


def hex_lines(event: WireEvent) -> Iterator[tuple[int, str, str]]:
    """Yield offset in the stream, bytes in hex, and what they are: field by field for messages."""
    record = (
        event.header
        if isinstance(event, WeightEvent)
        else event.message
        if isinstance(event, MessageEvent)
        else None
    )
    schema = MESSAGES.get(type(record))
    if schema is None:
        label = "weights end" if isinstance(record, WeightsEnd) else ""
        yield from _hex(event.offset, event.raw, label)
        return
    path = type(record).__name__
    for span in field_spans(schema, record, path):
        data = event.raw[span.offset : span.offset + span.size]
        name = span.path.removeprefix(f"{path}.")
        value = plain(span.value)
        code = f" ({int(span.value)})" if isinstance(value, str) and isinstance(span.value, int) else ""
        yield from _hex(event.offset + span.offset, data, f"{name} = {value}{code}")


def _hex(offset: int, data: memoryview, label: str) -> Iterator[tuple[int, str, str]]:
    for start in range(0, len(data), _BYTES_A_LINE):
        part = bytes(data[start : start + _BYTES_A_LINE])
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part) if not label else ""
        yield offset + start, part.hex(" "), label if not start else shown
