"""Who says what: a session between a root and one worker as a list of events, from the messages that make it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dllama_proto.connection import Role
from dllama_proto.events import Ack, AckKind, Event, PayloadChunk, SliceData, WeightsEnd
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, WeightHeader
from dllama_proto.sync_plan import Transfer, plan_link

__all__ = ["Dialogue", "Said", "session_dialogue"]


@dataclass(frozen=True, slots=True)
class Said:
    """What one side says."""

    role: Role
    event: Event


Dialogue = list[Said]


def session_dialogue(
    greeting: Greeting,
    net: NetConfig,
    node: NodeConfig,
    weights: Iterable[tuple[WeightHeader, bytes]] = (),
    forwards: Iterable[ControlPacket] = (),
    values: Callable[[Transfer, int], bytes] | None = None,
) -> Dialogue:
    """Return a whole session, the stop packet included.

    ``weights`` are pieces with their bytes. ``values`` gives the bytes of a slice, by transfer and row;
    without it they are zeros. In a forward the root's slices come first.
    :class:`~dllama_proto.connection.Connection` refuses what makes no sense when it is said.
    """
    talk = [
        Said(Role.ROOT, greeting),
        Said(Role.WORKER, Ack(AckKind.GREETING)),
        Said(Role.ROOT, Ack(AckKind.ROOT_READY)),
        Said(Role.ROOT, Ack(AckKind.NET_CONFIG_AHEAD)),
        Said(Role.ROOT, net),
        Said(Role.WORKER, Ack(AckKind.NET_CONFIG)),
        Said(Role.ROOT, Ack(AckKind.NODE_CONFIG_AHEAD)),
        Said(Role.ROOT, node),
        Said(Role.WORKER, Ack(AckKind.NODE_CONFIG)),
    ]
    for header, data in weights:
        talk.append(Said(Role.ROOT, header))
        if data:
            talk.append(Said(Role.ROOT, PayloadChunk(header.offset, memoryview(data))))
    talk += [Said(Role.ROOT, WeightsEnd()), Said(Role.WORKER, Ack(AckKind.WEIGHTS))]
    plan = plan_link(net, node, 0)
    position = 0
    for packet in forwards:
        talk.append(Said(Role.ROOT, packet))
        for role, transfers in ((Role.ROOT, plan.receives), (Role.WORKER, plan.sends)):
            for transfer in transfers:
                for row in range(packet.batch_size):
                    data = bytes(transfer.size) if values is None else values(transfer, row)
                    talk.append(Said(role, SliceData(transfer, row, memoryview(data))))
        position = packet.position + packet.batch_size
    return [*talk, Said(Role.ROOT, ControlPacket(position, 0))]
