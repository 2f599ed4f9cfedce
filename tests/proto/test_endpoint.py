"""Hosts and ports: what is written is read back, and what people write instead is told apart."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.endpoint import Endpoint, parse_host, repeated
from dllama_proto.messages import Peer

_LABELS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_", min_size=1, max_size=20)
_HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.ip_addresses(v=6, network="fe80::/64").map(lambda address: f"{address}%eth0"),
    st.lists(_LABELS, min_size=1, max_size=4).map(".".join),
)
_ENDPOINTS = st.builds(Endpoint, _HOSTS, st.integers(1, 65_535))


@given(_ENDPOINTS)
def test_what_is_written_is_read_back(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert parse_host(endpoint.host) == endpoint.host


@given(st.text(max_size=40) | st.from_regex(r"[\[\]:.,/0-9a-f%]{0,30}", fullmatch=True))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refusal = None
    try:
        endpoint = Endpoint.parse(text)
    except ValueError as error:
        refusal = error
    if refusal is None:
        assert 1 <= endpoint.port <= 65_535
        assert Endpoint.parse(str(endpoint)) == endpoint
    else:
        assert type(refusal) is ValueError
        assert str(refusal).isprintable()


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert str(Endpoint("::1", 9990)) == "[::1]:9990"
    assert str(Endpoint("10.0.0.2", 9990)) == "10.0.0.2:9990"
    assert str(Peer("fe80::2", 9990).endpoint) == "[fe80::2]:9990"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("A:1,B:2", "separate workers by spaces: A:1 B:2"),
        ("A:1, B:2,", "separate workers by spaces: A:1 B:2"),
        ("A:1 B:2", "separate workers by spaces: A:1 B:2"),
        ("http://10.0.0.2:9990", "leave out http://: 10.0.0.2:9990"),
        ("HTTP://[::1]:1/x?y", "leave out HTTP:// and /x?y: [::1]:1"),
        ("tcp://node", "leave out tcp://: node:9990"),
        ("node:1/path", "leave out /path: node:1"),
        ("node:x/path", "leave out /path"),
        ("node", "add the port, as node:9990"),
        ("[::1]", "add the port, as [::1]:9990"),
        ("", "add the port, as HOST:9990"),
        (":9990", "add the host, as 127.0.0.1:9990"),
        ("node:", "the port is a number from 1 to 65535"),
        ("node:0", "the port is a number from 1 to 65535"),
        ("node:65536", "the port is a number from 1 to 65535"),
        ("node:9" + 5000 * "9", "the port is a number from 1 to 65535"),
        ("node:\uff11", "the port is a number from 1 to 65535"),
        ("node:-1", "the port is a number from 1 to 65535"),
        ("::1", "put the IPv6 address in brackets: [::1]:9990"),
        ("fe80::1%eth0", "put the IPv6 address in brackets: [fe80::1%eth0]:9990"),
        ("::1:9990", "put the IPv6 address in brackets: [::1]:9990"),
        ("[10.0.0.2]:1", "leave out the brackets: 10.0.0.2:1"),
        ("[::1", "an IPv6 address stands in brackets, as [::1]:9990"),
        ("[::1]9990", "an IPv6 address stands in brackets, as [::1]:9990"),
        ("[nobody/here]:1", "leave out /here]:1"),
        ("[::g]:1", "'::g' is no IPv6 address"),
        ("a:b:1", "it has more than one colon"),
        ("no de:1", "separate workers by spaces"),
        ("user@node:1", "'user@node' is no host"),
        (64 * "x" + ":1", "is no host"),
    ],
)
def test_what_people_write_instead_is_told_apart(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT") as caught:
        Endpoint.parse(text)
    assert advice in str(caught.value)


def test_what_is_left_out_comes_from_the_defaults() -> None:
    assert Endpoint.parse("node", default_port=7) == Endpoint("node", 7)
    assert Endpoint.parse("[::1]", default_port=7) == Endpoint("::1", 7)
    assert Endpoint.parse(":8", default_host="::1") == Endpoint("::1", 8)
    assert Endpoint.parse(":0", default_host="::1", any_port=True) == Endpoint("::1", 0)


@pytest.mark.parametrize(
    ("text", "host"),
    [("0.0.0.0", "0.0.0.0"), ("::", "::"), ("[::1]", "::1"), ("node.lan", "node.lan")],  # noqa: S104
)
def test_a_host_alone(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://node", "leave out http://"),
        ("10.0.0.2:9990", "without a port"),
        ("a,b", "expected one host"),
        ("", "expected a host"),
        ("[node]", "expected a host"),
    ],
)
def test_what_is_no_host_alone(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_host(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.0.0.2:9990", "10.0.0.2:9990"),
        ("Node.lan:9990", "node.LAN.:9990"),
        ("[::1]:9990", "[0:0:0:0:0:0:0:1]:9990"),
        ("[FE80::A]:9990", "[fe80::a]:9990"),
    ],
)
def test_the_same_endpoint_twice_is_found(one: str, other: str) -> None:
    first, second = Endpoint.parse(one), Endpoint.parse(other)
    between = Endpoint.parse("node.lan:9991")
    assert repeated([first, between, second]) == second
    assert repeated([first, between]) is None


def test_a_sockets_address_loses_its_zone() -> None:
    assert Endpoint.of_socket(("fe80::1%eth0", 5, 0, 2)) == Endpoint("fe80::1", 5)
    assert Endpoint.of_socket((str(IPv4Address(1)), 5)) == Endpoint("0.0.0.1", 5)
    assert IPv6Address(Endpoint.of_socket(("::1", 5, 0, 0)).host).is_loopback
