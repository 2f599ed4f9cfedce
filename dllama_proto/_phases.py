"""Who may say what, when: every transition of the protocol is in this file, and nothing else.

Between the root and a worker there is one conversation, so both keep the same phase: a phase says whose
turn it is and what they may say, and what is said leads to the next phase. Sending and receiving make
the same step, which is why one table serves both roles. Only while slices flow is it everyone's turn at
once.

A link between two workers carries slices and nothing else; their forwards begin by a control packet on
another link, so here it is the caller who says when.

A worker may also refuse: until it is ready, whoever's turn it is, it may say why it cannot go on. That is an
extension of this project (:mod:`dllama_proto.schemas.refusal`).

Source: the order of reads and writes in ``nn-network.cpp`` (``NnNetwork::serve`` and ``connect``,
``NnRootConfigWriter``, ``NnWorkerConfigReader``, ``NnWorkerWeightReader``) and ``app.cpp``
(``WorkerLlmInference``, ``RootLlmInference``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

__all__ = [
    "ACK_PHASES",
    "AckKind",
    "FIRST_PHASE",
    "PEER_LINK",
    "Phase",
    "REFUSAL_PHASES",
    "ROOT_LINK",
    "Role",
    "Signal",
    "Turn",
]


class Role(Enum):
    """Which end of the link between root and worker we are."""

    ROOT = auto()
    WORKER = auto()


class Phase(Enum):
    """What comes next on a link."""

    #: The root introduces itself.
    GREETING = auto()
    #: The worker answers.
    GREETING_ACK = auto()
    #: The root says that every worker has answered; then workers connect to each other.
    ROOT_READY = auto()
    #: The root announces the net config with an ack.
    NET_CONFIG_AHEAD = auto()
    NET_CONFIG = auto()
    NET_CONFIG_ACK = auto()
    #: The root announces the node config with an ack.
    NODE_CONFIG_AHEAD = auto()
    NODE_CONFIG = auto()
    NODE_CONFIG_ACK = auto()
    #: A piece of a weight, or the end of them.
    WEIGHTS = auto()
    #: The bytes of the piece just announced.
    WEIGHT_DATA = auto()
    WEIGHTS_ACK = auto()
    #: Nothing is under way; a control packet begins a forward or stops.
    IDLE = auto()
    #: A forward: both sides send and receive slices.
    SLICES = auto()
    #: Stopped; nothing may follow.
    CLOSED = auto()
    #: The worker has refused; nothing may follow.
    REFUSED = auto()
    #: The other side broke the protocol; nothing can be understood any more.
    BROKEN = auto()


class AckKind(Enum):
    """Which ack, by its place in the session."""

    #: Worker: your greeting arrived.
    GREETING = auto()
    #: Root: every worker has answered, connect to each other.
    ROOT_READY = auto()
    #: Root: a net config follows.
    NET_CONFIG_AHEAD = auto()
    #: Worker: the net config arrived.
    NET_CONFIG = auto()
    #: Root: a node config follows.
    NODE_CONFIG_AHEAD = auto()
    #: Worker: the node config arrived.
    NODE_CONFIG = auto()
    #: Worker: the weights arrived.
    WEIGHTS = auto()


class Signal(Enum):
    """What moves a link from one phase to the next."""

    GREETING = auto()
    ACK = auto()
    NET_CONFIG = auto()
    NODE_CONFIG = auto()
    WEIGHT_HEADER = auto()
    WEIGHTS_END = auto()
    #: The worker cannot go on, and says why.
    REFUSAL = auto()
    #: A control packet with rows to evaluate; between workers, the caller's word that one came.
    FORWARD = auto()
    #: A control packet without rows.
    STOP = auto()
    #: The last byte of a payload, in every direction that has one.
    PAYLOAD_DONE = auto()


@dataclass(frozen=True, slots=True)
class Turn:
    """Who may send in a phase (None: both, or none), and which phase follows each signal."""

    speaker: Role | None
    next: Mapping[Signal, Phase]


def _turn(speaker: Role | None, **leads_to: Phase) -> Turn:
    return Turn(speaker, MappingProxyType({Signal[name]: phase for name, phase in leads_to.items()}))


#: The first phase of a link between root and worker.
FIRST_PHASE = Phase.GREETING

#: Root and worker.
ROOT_LINK: Mapping[Phase, Turn] = MappingProxyType(
    {
        Phase.GREETING: _turn(Role.ROOT, GREETING=Phase.GREETING_ACK),
        Phase.GREETING_ACK: _turn(Role.WORKER, ACK=Phase.ROOT_READY, REFUSAL=Phase.REFUSED),
        Phase.ROOT_READY: _turn(Role.ROOT, ACK=Phase.NET_CONFIG_AHEAD),
        Phase.NET_CONFIG_AHEAD: _turn(Role.ROOT, ACK=Phase.NET_CONFIG),
        Phase.NET_CONFIG: _turn(Role.ROOT, NET_CONFIG=Phase.NET_CONFIG_ACK),
        Phase.NET_CONFIG_ACK: _turn(Role.WORKER, ACK=Phase.NODE_CONFIG_AHEAD, REFUSAL=Phase.REFUSED),
        Phase.NODE_CONFIG_AHEAD: _turn(Role.ROOT, ACK=Phase.NODE_CONFIG),
        Phase.NODE_CONFIG: _turn(Role.ROOT, NODE_CONFIG=Phase.NODE_CONFIG_ACK),
        Phase.NODE_CONFIG_ACK: _turn(Role.WORKER, ACK=Phase.WEIGHTS, REFUSAL=Phase.REFUSED),
        Phase.WEIGHTS: _turn(Role.ROOT, WEIGHT_HEADER=Phase.WEIGHT_DATA, WEIGHTS_END=Phase.WEIGHTS_ACK),
        Phase.WEIGHT_DATA: _turn(Role.ROOT, PAYLOAD_DONE=Phase.WEIGHTS),
        Phase.WEIGHTS_ACK: _turn(Role.WORKER, ACK=Phase.IDLE, REFUSAL=Phase.REFUSED),
        Phase.IDLE: _turn(Role.ROOT, FORWARD=Phase.SLICES, STOP=Phase.CLOSED),
        Phase.SLICES: _turn(None, PAYLOAD_DONE=Phase.IDLE),
        Phase.CLOSED: _turn(None),
        Phase.REFUSED: _turn(None),
        Phase.BROKEN: _turn(None),
    }
)

#: Where the worker may refuse, whoever's turn it is: from the greeting on, until it has said that it is ready.
#: Its next word in each of them is an ack, at once or later, and a refusal stands in that ack's place.
REFUSAL_PHASES = frozenset(
    {
        Phase.GREETING_ACK,
        Phase.ROOT_READY,
        Phase.NET_CONFIG_AHEAD,
        Phase.NET_CONFIG,
        Phase.NET_CONFIG_ACK,
        Phase.NODE_CONFIG_AHEAD,
        Phase.NODE_CONFIG,
        Phase.NODE_CONFIG_ACK,
        Phase.WEIGHTS,
        Phase.WEIGHT_DATA,
        Phase.WEIGHTS_ACK,
    }
)

#: Worker and worker; it begins idle.
PEER_LINK: Mapping[Phase, Turn] = MappingProxyType(
    {
        Phase.IDLE: _turn(None, FORWARD=Phase.SLICES),
        Phase.SLICES: _turn(None, PAYLOAD_DONE=Phase.IDLE),
        Phase.BROKEN: _turn(None),
    }
)

#: Which ack a phase is about.
ACK_PHASES: Mapping[Phase, AckKind] = MappingProxyType(
    {
        Phase.GREETING_ACK: AckKind.GREETING,
        Phase.ROOT_READY: AckKind.ROOT_READY,
        Phase.NET_CONFIG_AHEAD: AckKind.NET_CONFIG_AHEAD,
        Phase.NET_CONFIG_ACK: AckKind.NET_CONFIG,
        Phase.NODE_CONFIG_AHEAD: AckKind.NODE_CONFIG_AHEAD,
        Phase.NODE_CONFIG_ACK: AckKind.NODE_CONFIG,
        Phase.WEIGHTS_ACK: AckKind.WEIGHTS,
    }
)
