"""Short words for what is on the wire: shapes, sizes, times, and one line for each kind of event."""

from __future__ import annotations

from dllama_proto.bounded_text import NAME_LENGTH, first_few, shortened
from dllama_proto.dissect.events import (
    ClosedEvent,
    FaultEvent,
    MessageEvent,
    MissingEvent,
    NoticeEvent,
    OpenedEvent,
    SliceEvent,
    UnexplainedEvent,
    WeightEvent,
    WireEvent,
)
from dllama_proto.enums import PointerSource, op_quant_type
from dllama_proto.events import Ack, WeightsEnd
from dllama_proto.formatting import counted, format_bytes
from dllama_proto.messages import (
    ControlPacket,
    Greeting,
    NetConfig,
    NodeConfig,
    OpConfig,
    Pointer,
    Refusal,
    Size3D,
)

__all__ = [
    "describe",
    "pointer_size",
    "pointer_text",
    "quant_key_text",
    "shape_text",
]

#: Peers and pipes that a line names; with -v a message is shown as a whole.
_N_NAMES = 16


def shape_text(size: Size3D) -> str:
    """Return type and shape; leading ones are left out."""
    if not size.n_bytes:
        return "none"
    dims = [size.z, size.y, size.x]
    while len(dims) > 1 and dims[0] == 1:
        dims.pop(0)
    return f"{size.float_type.name} " + "".join(f"[{n}]" for n in dims)


def pointer_text(pointer: Pointer, net: NetConfig | None, node: NodeConfig) -> str:
    """Return what a pointer points at, by name."""
    is_pipe = pointer.source is PointerSource.PIPE
    size = pointer_size(pointer, net, node)
    holders = (net.pipes if net is not None else ()) if is_pipe else node.buffers
    name = holders[pointer.index].name if pointer.index < len(holders) else str(pointer.index)
    what = "" if size is None else f" {shape_text(size)}"
    return f"{'pipe' if is_pipe else 'buffer'} {name}{what} ({pointer.type.name.lower()})"


def pointer_size(pointer: Pointer, net: NetConfig | None, node: NodeConfig) -> Size3D | None:
    """Return the size of the memory that a pointer points at, where it is known."""
    holders = (
        (net.pipes if net is not None else ()) if pointer.source is PointerSource.PIPE else node.buffers
    )
    return holders[pointer.index].size if pointer.index < len(holders) else None


def quant_key_text(op: OpConfig, net: NetConfig | None, node: NodeConfig) -> str:
    """Return the quant key of an op (``Q80_Q40_F32``), or a question mark."""
    source, target = pointer_size(op.input, net, node), pointer_size(op.output, net, node)
    if source is None or target is None:
        return "?"
    key = op_quant_type(source.float_type, op.weight_size.float_type, target.float_type)
    return "no such key" if key is None else key.name


def describe(event: WireEvent) -> str:
    """Return what an event says, in one line."""
    match event:
        case MessageEvent():
            return _message(event)
        case WeightEvent():
            return _weight(event)
        case SliceEvent():
            lost = f", {event.missing} of its bytes missing" if event.missing else ""
            cut = f", only {counted(event.size, 'byte')} came" if event.size < event.transfer.size else ""
            return (
                f"{event.place}: pipe {event.pipe}, row {event.row} (position {event.position}), "
                f"bytes {event.transfer.start}-{event.transfer.start + event.transfer.size - 1} "
                f"of {event.transfer.row_bytes}{lost}{cut}"
            )
        case MissingEvent():
            return f"{counted(event.size, 'byte')} not captured: {event.within}"
        case UnexplainedEvent():
            return f"{counted(event.size, 'byte')} without a meaning: {event.reason}"
        case FaultEvent():
            hint = f" ({event.hint})" if event.hint else ""
            return f"{event.path}: expected {event.expected}, got {event.got}{hint}"
        case OpenedEvent():
            return (
                "" if event.stream is None else f"{event.stream.source} dialled {event.stream.destination}"
            )
        case ClosedEvent():
            how = "aborted" if event.reset else "closed"
            return f"{how} by the sender, after {counted(event.offset, 'byte')} ({event.phase.name})"
        case NoticeEvent():
            return event.text
        case _:
            raise TypeError(f"{type(event).__name__} has no description")


def _message(event: MessageEvent) -> str:
    message = event.message
    match message:
        case Greeting():
            peers = first_few((str(peer.endpoint) for peer in message.peers), n_shown=_N_NAMES)
            others = f"; the others: {peers}" if peers else ""
            return f"you are worker {message.worker_index} of {message.n_sockets}{others}"
        case Ack():
            return message.kind.name
        case Refusal():
            return f"cannot go on: {message.reason}"
        case NetConfig():
            pipes = first_few(
                (f"{shortened(pipe.name, NAME_LENGTH)} {shape_text(pipe.size)}" for pipe in message.pipes),
                n_shown=_N_NAMES,
            )
            rows = counted(message.n_batches, "row")
            return f"{counted(message.n_nodes, 'node')}, {rows} a batch, pipes {pipes}"
        case NodeConfig():
            ops = [op for segment in message.segments for op in segment.ops]
            weights = sum(op.weight_size.n_bytes for op in ops)
            return (
                f"node {message.node_index}: {counted(len(message.buffers), 'buffer')}, "
                f"{counted(len(message.segments), 'segment')}, {counted(len(ops), 'op')}, "
                f"{format_bytes(weights)} of weights"
            )
        case WeightsEnd():
            return "all weights were sent"
        case ControlPacket():
            if message.is_stop:
                return "stop"
            number = "" if event.forward is None else f"forward {event.forward.index}: "
            return f"{number}{counted(message.batch_size, 'row')} from position {message.position}"
    raise TypeError(f"{type(message).__name__} has no description")


def _weight(event: WeightEvent) -> str:
    header = event.header
    expert = "" if event.expert is None else f", expert {event.expert}"
    whole = "" if event.shape is None else f" of {shape_text(event.shape)}"
    span = event.time - event.began
    rate = f", {format_bytes(event.data_size / span * 1e9)}/s" if span > 0 else ""
    cut = f", only {event.data_size} came" if event.data_size < header.n_bytes else ""
    lost = f", {event.missing} missing" if event.missing else ""
    return (
        f"{header.name} {header.op_index}{expert}: "
        f"bytes {header.offset}-{header.offset + header.n_bytes - 1}{whole}{rate}{cut}{lost}"
    )
