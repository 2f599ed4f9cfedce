"""One message at a time: any record and back, bytes that are wrong, and bytes that are left."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dllama_proto
from dllama_proto.codec import decode, encode
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.events import Ack, AckKind, Closed, Event, WeightsEnd
from dllama_proto.limits import Limits
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Peer, WeightHeader
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.layout import field_spans
from tests.helpers.any_message import records
from tests.helpers.captures import load
from tests.proto import configs

KINDS = list(MESSAGES)

SAMPLES: list[Any] = [configs.GREETING, configs.NET, configs.NODE, configs.WEIGHT, configs.CONTROL]


def name_of(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


# There and back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@given(data=st.data())
def test_any_record_of_any_message_comes_back(kind: type[Any], data: st.DataObject) -> None:
    record = data.draw(records(MESSAGES[kind]))
    encoded = encode(record)
    decoded = decode(kind, encoded)
    assert type(decoded) is kind
    assert repr(decoded) == repr(record)  # NaN differs from itself
    assert encode(decoded) == encoded


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@given(data=st.data())
def test_any_bytes_are_the_message_that_makes_them_or_are_refused(
    kind: type[Any], data: st.DataObject
) -> None:
    """Also those of a message with some bytes changed, which are a message more often."""
    encoded = bytearray(encode(data.draw(records(MESSAGES[kind]))))
    for at in data.draw(st.lists(st.integers(0, len(encoded) - 1), max_size=3)):
        encoded[at] = data.draw(st.integers(0, 255))
    record: Any = None
    refusal: RemoteProtocolError | None = None
    try:
        record = decode(kind, encoded)
    except RemoteProtocolError as error:
        refusal = error
    if refusal is None:
        assert encode(record) == encoded
    else:
        assert refusal.path.startswith(kind.__name__)
        assert refusal.offset is not None
        assert 0 <= refusal.offset <= len(encoded)


@pytest.mark.parametrize("message", SAMPLES, ids=name_of)
def test_bytes_may_be_in_any_kind_of_memory(message: Any) -> None:
    data = encode(message)
    for form in (data, bytearray(data), memoryview(data), memoryview(b"x" + data)[1:]):
        assert decode(type(message), form) == message


def test_the_package_has_both() -> None:
    assert (dllama_proto.decode, dllama_proto.encode) == (decode, encode)


def test_a_recorded_greeting() -> None:
    data = load("tiny-q40-2n").data(0, 1)[:8]
    assert decode(Greeting, data) == Greeting(1, 0, ())


# Acks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AckKind)
def test_all_acks_are_the_same_four_bytes(kind: AckKind) -> None:
    assert encode(Ack(kind)) == bytes.fromhex("aaaa6701")


def test_an_ack_is_known_by_its_place_alone() -> None:
    with pytest.raises(LocalProtocolError, match="Ack: expected a message: Greeting, NetConfig"):
        decode(Ack, bytes.fromhex("aaaa6701"))


def test_the_end_of_weights() -> None:
    assert encode(WeightsEnd()) == bytes(4)
    assert decode(WeightsEnd, bytes(4)) == WeightsEnd()
    for data in (b"", bytes(3), bytes(5), b"\1\0\0\0"):
        with pytest.raises(RemoteProtocolError, match="WeightsEnd at byte 0"):
            decode(WeightsEnd, data)


# What is wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", SAMPLES, ids=name_of)
def test_bytes_that_are_missing_are_told_with_the_place(message: Any) -> None:
    data = encode(message)
    paths = [span.path for span in field_spans(MESSAGES[type(message)], message, name_of(message))]
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError, match="got the end of the bytes") as caught:
            decode(type(message), data[:size])
        assert caught.value.offset == size
        assert any(path.startswith(caught.value.path) for path in paths)


@pytest.mark.parametrize("message", SAMPLES, ids=name_of)
@pytest.mark.parametrize("n", [1, 100])
def test_bytes_that_are_left_over_are_told_with_the_place(message: Any, n: int) -> None:
    data = encode(message)
    with pytest.raises(RemoteProtocolError, match=f"expected a message of {len(data)} bytes") as caught:
        decode(type(message), data + bytes(n))
    assert (caught.value.path, caught.value.offset) == (name_of(message), len(data))
    assert caught.value.got == ("1 byte more" if n == 1 else f"{n} bytes more")


def test_an_unknown_code_is_told_with_the_place() -> None:
    data = bytearray(encode(configs.NODE))
    spans = field_spans(MESSAGES[NodeConfig], configs.NODE, "NodeConfig")
    [at] = [span.offset for span in spans if span.path == "NodeConfig.segments[1].syncs[0].sync_type"]
    data[at] = 77
    with pytest.raises(
        RemoteProtocolError, match=rf"segments\[1\]\.syncs\[0\]\.sync_type at byte {at}: expected one of"
    ):
        decode(NodeConfig, data)


def test_the_callers_limits_hold() -> None:
    greeting = Greeting(3, 0, (Peer("a", 1), Peer("b", 2)))
    assert decode(Greeting, encode(greeting), Limits(n_sockets=3)) == greeting
    with pytest.raises(RemoteProtocolError, match="n_sockets at byte 0: expected 1 to 2, got 3"):
        decode(Greeting, encode(greeting), Limits(n_sockets=2))


def test_the_end_of_a_list_is_no_weight() -> None:
    with pytest.raises(RemoteProtocolError, match="WeightHeader at byte 0: expected a message"):
        decode(WeightHeader, bytes(4))


def test_what_makes_no_sense_is_a_message_all_the_same() -> None:
    """See dllama_proto.verify for sense."""
    assert decode(NetConfig, encode(NetConfig(0, 0, (), ()))) == NetConfig(0, 0, (), ())


@pytest.mark.parametrize("kind", [int, Closed, Peer])
def test_only_messages_are_decoded(kind: type[Any]) -> None:
    with pytest.raises(LocalProtocolError, match="expected a message: Greeting, NetConfig, NodeConfig"):
        decode(kind, b"")


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (ControlPacket(-1, 1), "ControlPacket.position: expected a value that fits the field"),
        (Greeting(1, 0, (Peer("a\0b", 1),)), r"Greeting\.peers"),
        (Closed, "expected a message"),
    ],
)
def test_what_has_no_bytes_is_refused(message: Event, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        encode(message)
