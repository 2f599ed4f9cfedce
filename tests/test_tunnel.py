"""``dllama-worker tunnel``: nodes without TLS in a cluster with it."""

from __future__ import annotations

import re
import socket
from contextlib import closing

import pytest

from dllama_proto.endpoint import Endpoint
from dllama_worker.__main__ import main
from dllama_worker.node.tls import load_tls
from dllama_worker.report import Report
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session
from dllama_worker.tunnel.proxy import TunnelServer
from tests.helpers.certificates import FOREIGN, OURS, files_of
from tests.helpers.serving import serving

_ANY = Endpoint("127.0.0.1", 0)


def test_a_plain_worker_and_a_plain_root_through_two_tunnels() -> None:
    told: list[str] = []
    contexts = load_tls(files_of(OURS))
    with (
        serving(1) as [worker],
        closing(TunnelServer(_ANY, worker, contexts, told.append, accepts_tls=True)) as there,
        closing(
            TunnelServer(_ANY, Endpoint("127.0.0.1", there.port), contexts, told.append, accepts_tls=False)
        ) as here,
    ):
        outside, plain = (Endpoint("127.0.0.1", end.port) for end in (there, here))
        with open_session(RootOptions("inference", workers=(plain,)), Report()) as session:
            assert session.cluster.links[1].received_bytes > 0
        with open_session(
            RootOptions("inference", workers=(outside,), tls=files_of(OURS)), Report()
        ) as session:
            assert session.cluster.links[1].received_bytes > 0
    assert told == []


def test_who_has_no_certificate_of_the_cluster_does_not_reach_the_program() -> None:
    told: list[str] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as program,
        closing(
            TunnelServer(
                _ANY,
                Endpoint("127.0.0.1", program.getsockname()[1]),
                load_tls(files_of(OURS)),
                told.append,
                accepts_tls=True,
            )
        ) as tunnel,
        socket.create_connection(("127.0.0.1", tunnel.port)) as plain,
        socket.create_connection(("127.0.0.1", tunnel.port)) as foreign,
    ):
        plain.sendall(b"\x01\x00\x00\x00")
        with pytest.raises(OSError, match=r"certificate|closed|reset|EOF"):
            load_tls(files_of(FOREIGN)).dialling.wrap_socket(foreign).recv(1)
        plain.settimeout(5)
        while plain.recv(64):
            pass
        program.setblocking(False)
        with pytest.raises(BlockingIOError):
            program.accept()
    assert any("does not speak TLS" in line for line in told)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--accept 9990=9991", "a tunnel needs --tls-cert"),
        ("--accept 9990=10.0.0.1:9991", "10.0.0.1:9991 is not on loopback"),
        ("--dial 0.0.0.0:9990=10.0.0.1:9991", "0.0.0.0:9990 is not on loopback"),
        ("--dial 9990", "expected LISTEN=TO"),
    ],
)
def test_what_a_tunnel_is_not(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["tunnel", *arguments.split()])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert re.search(re.escape(said), capsys.readouterr().err)
