"""The recorded sessions as dialogues: the dialogue kit's replay of one link of a recording."""

from __future__ import annotations

from functools import partial

from dllama_proto.connection import Role
from dllama_proto.messages import ControlPacket, NetConfig, NodeConfig
from dllama_proto.sync_plan import plan_link
from dllama_proto.testing import Cut, Replay, replay, replay_peers, whole
from tests.helpers.captures import Session

__all__ = ["replay_link", "replay_root"]


def replay_root(session: Session, worker: int, cut: Cut = whole) -> Replay[Role]:
    """Decode the link between the root and a worker."""
    return replay(session.data(0, worker), session.data(worker, 0), cut=cut)


def replay_link(session: Session, one: int, other: int, cut: Cut = whole) -> Replay[int]:
    """Decode the link between two workers; the forwards are those of the root's control packets."""
    heard = replay_root(session, one).heard[Role.WORKER]
    net = next(event for event in heard if isinstance(event, NetConfig))
    node = next(event for event in heard if isinstance(event, NodeConfig))
    packets = (event for event in heard if isinstance(event, ControlPacket) and not event.is_stop)
    decode = partial(replay_peers, plan_link(net, node, other), [packet.batch_size for packet in packets])
    return decode(session.data(one, other), session.data(other, one), cut=cut)
