"""One session of a cluster: its nodes and their addresses, its configuration, its forwards.

Links tell it what was said and ask it what they need to know; all they share goes through here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from dllama_proto._phases import AckKind
from dllama_proto.dissect.events import Forward, Place, Stream
from dllama_proto.dissect.peer_link import PeerLinkDecoder
from dllama_proto.dissect.places import places_of
from dllama_proto.dissect.root_link import RootLinkDecoder
from dllama_proto.dissect.tcp import Conversation, Direction
from dllama_proto.events import Ack, Event
from dllama_proto.formatting import counted
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Size3D, WeightHeader
from dllama_proto.sync_plan import LinkPlan, plan_link
from dllama_proto.verify import WeightKey

__all__ = ["KnownNode", "Session", "SessionWatcher"]

#: Forwards that are remembered for links which have not come as far.
_N_FORWARDS = 65_536


@dataclass(slots=True)
class KnownNode:
    """A node as far as it is known: where it listens, and whether its address is one (not a name)."""

    host: str
    port: int | None
    is_address: bool


class SessionWatcher(Protocol):
    """Who is told what happens in a session."""

    def configured(self, session: Session) -> None:
        """Learn that more of its configuration is known, or of where its workers listen."""

    def forward_began(self, session: Session) -> None:
        """Learn that a forward has begun, which links between workers may have waited for."""


class Session:
    """What all links of a session have in common; ``nodes[0]`` is the root."""

    def __init__(
        self,
        number: int,
        greeting: Greeting,
        dialler: Direction,
        notice: Callable[[int, Stream | None, str], None],
        watcher: SessionWatcher | None = None,
    ) -> None:
        self.number = number
        self.n_nodes = greeting.n_sockets + 1
        self.nodes: list[KnownNode | None] = [KnownNode(dialler.source, None, True)] + [
            None
        ] * greeting.n_sockets
        self.net: NetConfig | None = None
        self.configs: dict[int, NodeConfig] = {}
        self.root_links: dict[int, RootLinkDecoder] = {}
        self.peer_links: list[PeerLinkDecoder] = []
        self.n_forwards = 0
        self._forwards: deque[Forward] = deque(maxlen=_N_FORWARDS)
        self._places: tuple[Place, ...] = ()
        self._weights: dict[tuple[int, str, int], Size3D] = {}
        self._ready = False
        self._matched: set[tuple[int, int]] = set()
        self._notice = notice
        self._watcher = watcher

    # Who is in it ----------------------------------------------------------------------------------------

    @property
    def is_joining(self) -> bool:
        """Whether the root may greet one more worker."""
        return not self._ready and len(self.root_links) < self.n_nodes - 1

    def takes(self, greeting: Greeting, dialler: Direction) -> bool:
        """Tell whether a greeting is one more of this session's."""
        root = self.nodes[0]
        return (
            not self._ready
            and root is not None
            and root.host == dialler.source
            and greeting.n_sockets + 1 == self.n_nodes
            and greeting.worker_index + 1 not in self.root_links
            and all(
                known is None
                or not known.is_address
                or not _is_address(host)
                or (host, port) == (known.host, known.port)
                for known, (host, port) in zip(self._others(greeting), _listed(greeting), strict=True)
            )
        )

    def _others(self, greeting: Greeting) -> list[KnownNode | None]:
        me = greeting.worker_index + 1
        return [node for index, node in enumerate(self.nodes) if index not in (0, me)]

    def add_root_link(self, decoder: RootLinkDecoder, greeting: Greeting, dialler: Direction) -> None:
        """Learn where a worker listens, and from its greeting where the others do."""
        self.root_links[decoder.node] = decoder
        others = [index for index in range(1, self.n_nodes) if index != decoder.node]
        for index, (host, port) in zip(others, _listed(greeting), strict=True):
            if self.nodes[index] is None:
                self.nodes[index] = KnownNode(host, port, _is_address(host))
        self.nodes[decoder.node] = KnownNode(dialler.destination, dialler.destination_port, True)
        self._tell_configured()

    def _tell_configured(self) -> None:
        if self.is_configured and self._watcher is not None:
            self._watcher.configured(self)

    @property
    def is_configured(self) -> bool:
        """Whether enough is known to plan what workers send each other."""
        return self.net is not None and bool(self.configs)

    def listener_of(self, conversation: Conversation) -> int | None:
        """Return the worker that a connection was dialled to, if it is one of this session."""
        end = conversation.dialler
        return next(
            (
                index
                for index, node in enumerate(self.nodes)
                if index
                and node is not None
                and node.port == end.destination_port
                and (not node.is_address or node.host == end.destination)
            ),
            None,
        )

    def match(self, conversation: Conversation) -> LinkPlan | None:
        """Return what moves over a connection between workers, as its dialler sees it.

        None where it cannot be one. Workers dial those behind them in the list.
        """
        listener = self.listener_of(conversation)
        if listener is None or self.net is None:
            return None
        source = conversation.dialler.source
        for index in range(1, listener):
            node = self.nodes[index]
            if (index, listener) in self._matched or node is None:
                continue
            if node.is_address and node.host != source:
                continue
            config = self.configs.get(index)
            if config is not None:
                plan = plan_link(self.net, config, listener)
            elif listener in self.configs:
                plan = plan_link(self.net, self.configs[listener], index).reversed()
            else:
                continue
            self._matched.add((index, listener))
            return plan
        return None

    # What links tell and ask -------------------------------------------------------------------------------

    def learn(self, node: int, message: Event) -> None:
        """Learn from a message of the link between the root and worker ``node``."""
        match message:
            case Ack(kind=AckKind.ROOT_READY):
                self._ready = True
            case NetConfig():
                self.net = message
                self._tell_configured()
            case NodeConfig():
                self.configs[node] = message
                self._places = self._places or places_of(message)
                for segment in message.segments:
                    for op in segment.ops:
                        if op.weight_size.n_bytes:
                            self._weights[node, op.name, op.index] = op.weight_size
                self._tell_configured()
            case _:
                pass

    def begin_forward(self, index: int, packet: ControlPacket, stream: Stream) -> Forward:
        """Return the forward that the ``index``-th control packet of a link begins."""
        if index == self.n_forwards:
            forward = Forward(self.number, index, packet.position, packet.batch_size)
            self._forwards.append(forward)
            self.n_forwards += 1
            if self._watcher is not None:
                self._watcher.forward_began(self)
            return forward
        known = self.forward(index)
        if known is not None and (known.position, known.batch_size) != (packet.position, packet.batch_size):
            self._notice(
                0,
                stream,
                f"forward {index} has {counted(packet.batch_size, 'row')} from position {packet.position} here, "
                f"but {known.batch_size} from {known.position} on another link",
            )
            known = None
        return known or Forward(self.number, index, packet.position, packet.batch_size)

    def forward(self, index: int) -> Forward | None:
        """Return a forward, or None where it has not begun."""
        at = index - (self.n_forwards - len(self._forwards))
        return self._forwards[at] if 0 <= at < len(self._forwards) else None

    def pipe_name(self, pipe_index: int) -> str:
        """Return the name of a pipe."""
        return self.net.pipes[pipe_index].name if self.net is not None else ""

    def place(self, segment_index: int) -> Place:
        """Return where in the model a segment is."""
        if segment_index < len(self._places):
            return self._places[segment_index]
        return Place(None, f"segment {segment_index}")

    def weight_shape(self, node: int, header: WeightHeader) -> Size3D | None:
        """Return the shape of the weight that a piece belongs to."""
        return self._weights.get((node, header.name, header.op_index))

    def weights_of(self, node: int) -> dict[WeightKey, int]:
        """Return the weights of a node, and their sizes in bytes."""
        return {
            (name, index): size.n_bytes
            for (owner, name, index), size in self._weights.items()
            if owner == node
        }


def _listed(greeting: Greeting) -> list[tuple[str, int]]:
    return [(peer.host, peer.port) for peer in greeting.peers]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
