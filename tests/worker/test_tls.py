"""Links with TLS, on real sockets: who joins, who is turned away, and what both sides are told."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dllama_proto.endpoint import Endpoint
from dllama_worker import Worker, timeouts
from dllama_worker.errors import PeerLost, UsageError
from dllama_worker.node.tls import TlsContexts, TlsFiles, load_tls
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session
from dllama_worker.worker.options import WorkerOptions
from tests.helpers.certificates import EXPIRED, FOREIGN, OURS, files_of
from tests.helpers.reports import Collected


@contextmanager
def _serving(
    tls: TlsFiles | None, report: Report | None = None, seconds: float = 5.0
) -> Iterator[Endpoint]:
    with Worker(options=WorkerOptions(port=0, tls=tls, handshake_timeout=seconds), report=report) as worker:
        worker.start()
        yield worker.address


def _refusal(address: Endpoint, dialling: ssl.SSLContext | None) -> str:
    """What a root is told that greets a worker, whatever its certificates are."""
    tls = None if dialling is None else TlsContexts(dialling, dialling)
    with closing(Cluster([address], tls=tls)) as cluster, pytest.raises(PeerLost) as caught:
        cluster.connect()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _dialling(cluster: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cafile=files_of(OURS).authority)
    if cluster is not None:
        files = files_of(cluster)
        context.load_cert_chain(files.certificate, files.key)
    return context


def test_root_and_workers_with_certificates_compute() -> None:
    ours = files_of(OURS)
    with _serving(ours) as one, _serving(ours) as other:
        addresses = (one, other)
        with open_session(RootOptions("inference", workers=addresses, tls=ours), Report()) as session:
            assert session.cluster.links[2].received_bytes > 0


@pytest.mark.parametrize(
    ("cluster", "told", "logged"),
    [
        (
            EXPIRED,
            r"refuses this node's certificate \(certificate expired\)",
            "has expired; make a new",
        ),
        (FOREIGN, r"refuses this node's certificate \(", "not from the authority in --tls-ca"),
        (
            None,
            r"refuses this node's certificate \(certificate required\)",
            "shows no certificate: start it with",
        ),
    ],
)
def test_a_root_without_a_good_certificate_is_turned_away(
    cluster: str | None, told: str, logged: str
) -> None:
    report = Collected()
    with _serving(files_of(OURS), report) as address:
        message = _refusal(address, _dialling(cluster))
        report.wait_for(logged)
    assert re.search(told, message), message


def test_plain_against_tls() -> None:
    report = Collected()
    with _serving(files_of(OURS), report) as address:
        assert "refuses: this worker speaks TLS only" in _refusal(address, None)
        report.wait_for("does not speak TLS: start it with --tls-cert")


def test_tls_against_plain() -> None:
    report = Collected()
    with _serving(None, report) as address:
        assert "during the TLS handshake" in _refusal(address, _dialling(OURS))
        report.wait_for("speaks TLS and this worker does not")


def test_a_worker_of_another_cluster_is_not_greeted() -> None:
    report = Collected()
    with _serving(files_of(FOREIGN), report) as address:
        assert "not from the authority in --tls-ca" in _refusal(address, _dialling(OURS))
        report.wait_for("refuses this node's certificate")


def test_who_says_nothing_keeps_nobody_out_and_is_turned_away() -> None:
    report, ours = Collected(), files_of(OURS)
    with (
        _serving(ours, report, seconds=0.3) as address,
        socket.create_connection((address.host, address.port)) as idle,
    ):
        with open_session(RootOptions("inference", workers=(address,), tls=ours), Report()):
            pass
        idle.settimeout(5)
        assert idle.recv(1) == b""
        report.wait_for("no TLS handshake within 0.3 s")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": files_of(FOREIGN).key}, "the key is of another certificate"),
        ({"authority": files_of(FOREIGN).authority}, "not from the authority in --tls-ca"),
        ({"certificate": files_of(OURS).key}, "expected a PEM file"),
        ({"authority": Path("nowhere")}, "--tls-ca nowhere: cannot be read"),
    ],
)
def test_files_that_cannot_do_are_refused_at_the_start(changes: dict[str, Path], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_tls(replace(files_of(OURS), **changes))
    with pytest.raises(UsageError, match="certificate has expired"):
        load_tls(files_of(EXPIRED))


def test_a_handshake_of_a_root_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "DIAL", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Endpoint("127.0.0.1", silent.getsockname()[1])
        assert "no TLS handshake within 0.1 s" in _refusal(address, _dialling(OURS))
