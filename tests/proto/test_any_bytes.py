"""Any bytes at all give events or a RemoteProtocolError, in every phase, for both ends; nothing else."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dllama_proto._base_connection import BaseConnection
from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import NEED_DATA, PAUSED, Ack, Closed, PayloadChunk
from dllama_proto.messages import ControlPacket, NetConfig, NodeConfig, WeightHeader
from dllama_proto.peer import PeerConnection
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.wire import build_exactly
from dllama_proto.sync_plan import plan_link
from tests.helpers.captures import load
from tests.proto import configs
from tests.proto.stages import PHASES, SCRIPT, Pair

pytestmark = pytest.mark.slow

_PEER_PLAN = plan_link(configs.NET, configs.NODE, 1)


def _listen(
    link: BaseConnection, parts: list[bytes], *, answer: bool
) -> tuple[list[Any], RemoteProtocolError | None]:
    """Feed parts, then the end; return the events and the error, which ends them. Other errors pass."""
    events: list[Any] = []
    for part in [*parts, None]:
        if part is None:
            link.receive_eof()
        else:
            link.receive_data(part)
        while True:
            try:
                event = link.next_event()
            except RemoteProtocolError as error:
                return events, error
            if event is PAUSED and answer and isinstance(link, Connection) and _answer(link):
                continue
            if event is NEED_DATA or event is PAUSED or isinstance(event, Closed):
                assert event is not NEED_DATA or link.n_wanted > 0
                break
            events.append(event)
    return events, None


def _answer(link: Connection) -> bool:
    """Say what is due, if it is an answer (an ack, or slices); tell whether something was said."""
    if link.phase is Phase.SLICES:
        link.payload_sent(link.unsent_size)
        return True
    for role, event in SCRIPT:
        if (
            role is link.role
            and isinstance(event, Ack)
            and event.kind.name == link.phase.name.removesuffix("_ACK")
        ):
            link.send(event)
            return True
    return False


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(at)]


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase is not Phase.SLICES])
@pytest.mark.parametrize("role", Role)
@settings(max_examples=25)
@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=3))
def test_any_bytes(role: Role, phase: Phase, data: bytes, cuts: list[int]) -> None:
    _listen(Pair().advance_to(phase).ends[role], _split(data, cuts), answer=True)


@given(data=st.binary(max_size=1000), batch_size=st.integers(1, 4))
def test_any_bytes_between_peers(data: bytes, batch_size: int) -> None:
    link = PeerConnection(_PEER_PLAN)
    link.begin_forward(batch_size)
    _listen(link, [data], answer=False)


_CONFIGS = (NetConfig, NodeConfig, WeightHeader, ControlPacket)


def _sample(kind: type) -> bytes:
    message = next(event for _, event in SCRIPT if type(event) is kind)
    return build_exactly(MESSAGES[kind], message, "Message")


@pytest.mark.parametrize("kind", _CONFIGS)
@settings(max_examples=60)
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, 10_000),
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from(
                    [b"\xff\xff\xff\xff", b"\xff" * 8, b"\0\0\0\0", b"\0\0\0\x80", b"\1\0\0\0"]
                ),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 5000), max_size=3),
)
def test_spoilt_messages(kind: type, edits: list[tuple[int, bytes]], cuts: list[int]) -> None:
    phase = {
        NetConfig: Phase.NET_CONFIG,
        NodeConfig: Phase.NODE_CONFIG,
        WeightHeader: Phase.WEIGHTS,
        ControlPacket: Phase.IDLE,
    }[kind]
    data = bytearray(_sample(kind))
    for at, replacement in edits:
        at %= len(data)
        data[at : at + len(replacement)] = replacement[: len(data) - at]
    events, _ = _listen(Pair().advance_to(phase).worker, _split(bytes(data), cuts), answer=True)
    # Whatever was believed can be said again, and is the same.
    for event in events:
        if type(event) is kind:
            again = build_exactly(MESSAGES[kind], event, "Message")
            assert bytes(data).startswith(again)


_HEAD = load("tiny-q40-2n").data(0, 1)[:11_000]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    at=st.integers(0, len(_HEAD) - 1),
    value=st.integers(1, 255),
    cuts=st.lists(st.integers(0, len(_HEAD)), max_size=5),
)
def test_recorded_streams_with_one_byte_changed(at: int, value: int, cuts: list[int]) -> None:
    data = bytearray(_HEAD)
    data[at] ^= value
    _listen(Connection(Role.WORKER), _split(bytes(data), cuts), answer=True)


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_any_split_of_a_session_gives_the_same_events(cuts: list[int]) -> None:
    said = _said_by_root()
    whole, error = _listen(Connection(Role.WORKER), [said], answer=True)
    assert error is None
    split, error = _listen(Connection(Role.WORKER), _split(said, cuts), answer=True)
    assert error is None
    assert [e for e in split if not isinstance(e, PayloadChunk)] == [
        e for e in whole if not isinstance(e, PayloadChunk)
    ]
    assert _payload(split) == _payload(whole)
    assert len(whole) == len([1 for role, _ in SCRIPT if role is Role.ROOT])


def _payload(events: list[Any]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, PayloadChunk))


@cache
def _said_by_root() -> bytes:
    pair = Pair()
    said = b""
    for role, event in SCRIPT:
        data = bytes(pair.ends[role].send(event))
        other = pair.ends[Role.WORKER if role is Role.ROOT else Role.ROOT]
        other.receive_data(data)
        other.next_event()
        said += data if role is Role.ROOT else b""
    return said
