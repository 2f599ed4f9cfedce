"""Which connections are accepted, and that a flood of strangers is no flood of log lines."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from dllama_worker.worker.listener import Listener
from tests.helpers.reports import Collected


@pytest.mark.parametrize(
    ("host", "permitted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("fd00::1", True),
        ("fd01::1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("somewhere.example", False),
    ],
)
def test_allow_holds_for_every_way_to_write_an_address(host: str, permitted: bool) -> None:
    listener = Listener("127.0.0.1", 0, [ip_network("10.0.0.0/8"), ip_network("fd00::/16")])
    assert listener.permits(host) is permitted
    assert Listener("127.0.0.1", 0).permits(host)


def test_a_flood_of_strangers_is_logged_in_a_few_lines() -> None:
    now = [0.0]
    report = Collected()
    listener = Listener("127.0.0.1", 0, [ip_network("10.0.0.0/8")], report, clock=lambda: now[0])
    address = listener.listen()
    for _ in range(100):
        with socket.create_connection(address) as stranger:
            assert listener.accept() is None
            assert stranger.recv(1) == b""
    assert len(report.of("turned_away")) == 10
    now[0] += 5
    with socket.create_connection(address):
        assert listener.accept() is None
    assert report.of("turned_away")[-1]["unsaid"] == 90
    listener.close()


def test_accept_does_not_wait() -> None:
    listener = Listener("127.0.0.1", 0)
    listener.listen()
    assert listener.accept() is None
    listener.close()
