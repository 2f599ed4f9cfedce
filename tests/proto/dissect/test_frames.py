"""TCP segments come out of every kind of packet as they went in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.dissect.frames import address_of_key, reverse_key, tcp_segment
from dllama_proto.schemas.packet import LinkType
from tests.helpers.packets import LINKS, Tcp

_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
_U32 = st.integers(0, 2**32 - 1)
_PORT = st.integers(0, 65_535)
_TCP = st.builds(
    Tcp,
    source=st.one_of(st.just("10.0.0.1"), st.just("192.168.1.20")),
    destination=st.just("10.0.0.2"),
    source_port=_PORT,
    destination_port=_PORT,
    sequence=_U32,
    acknowledgement=_U32,
    flags=st.lists(st.sampled_from(list(_FLAGS)), unique=True).map(" ".join),
    payload=st.one_of(st.binary(max_size=40), st.just(bytes(66_000))),
)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("link", LINKS)
@given(tcp=_TCP)
def test_a_segment_comes_out_as_it_went_in(link: str, ipv6: bool, tcp: Tcp) -> None:
    if ipv6:
        tcp = replace(tcp, source="fe80::1", destination="2001:db8::2")
    number, build = LINKS[link]
    packet = build(tcp)
    segment = tcp_segment(number, packet, len(packet))
    assert segment is not None
    key, sequence, acknowledgement, flags, payload, missing = segment
    assert address_of_key(key) == (tcp.source, tcp.source_port, tcp.destination, tcp.destination_port)
    assert address_of_key(reverse_key(key)) == (
        tcp.destination,
        tcp.destination_port,
        tcp.source,
        tcp.source_port,
    )
    assert (sequence, acknowledgement) == (tcp.sequence, tcp.acknowledgement)
    assert flags == sum(_FLAGS[name] for name in tcp.flags.split())
    assert bytes(payload) == tcp.payload
    assert missing == 0


@pytest.mark.parametrize("link", LINKS)
def test_what_the_recorder_cut_off_is_counted(link: str) -> None:
    number, build = LINKS[link]
    tcp = Tcp("10.0.0.1", "10.0.0.2", 1, 2, 3, 4, "ack", bytes(range(100)))
    packet = build(tcp)
    for cut in range(1, len(packet)):
        segment = tcp_segment(number, packet[:-cut], len(packet))
        if segment is None:
            assert cut > 100
        else:
            *_, payload, missing = segment
            assert len(payload) + missing == 100
            assert missing == min(cut, 100)


@given(st.sampled_from(list(LinkType)), st.binary(max_size=120))
def test_any_bytes_are_a_segment_or_none(link: LinkType, data: bytes) -> None:
    segment = tcp_segment(link, data, len(data))
    assert segment is None or len(segment[4]) <= len(data)
