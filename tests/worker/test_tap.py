"""``dllama-proto tap``: passes everything on, unchanged but for peers where asked, and records it."""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.cli import main
from dllama_proto.connection import Connection, Role
from dllama_proto.dissect import Endpoint, Kind, LinkKind, MessageEvent, NoticeEvent, dissect_pcap
from dllama_proto.dissect.recording import RecordedConnection, file_header
from dllama_proto.messages import Greeting, Peer, Refusal
from dllama_worker.tap.command import Recorder
from dllama_worker.tap.peers import PeerRewriter
from dllama_worker.tap.proxy import Route, TapServer
from tests.helpers.captures import load
from tests.helpers.full_disk import FULL_DISK
from tests.helpers.processes import worker_process
from tests.proto.dissect.accounts import check_accounts, dissect_bytes

_OLD, _NEW = Peer("10.0.0.3", 9990), Peer("tap.example", 9993)
_GREETING = Greeting(3, 1, (Peer("10.0.0.2", 9990), _OLD))


def infer(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "dllama_worker.root", "inference", "--json", "--temperature", "0"]
    command += ["--prompt", "ROMEO:", "--steps", "8", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Kept(bytearray):
    """A recording in memory."""

    def __init__(self) -> None:
        super().__init__(file_header())
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> None:
        with self._lock:
            self += data


# Recordings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [("10.0.0.1", "10.0.0.2"), ("fe80::1", "fe80::2")])
def test_a_recording_is_a_capture(hosts: tuple[str, str]) -> None:
    session = load("tiny-q40-2n")
    recorded = RecordedConnection(Endpoint(hosts[0], 4000), Endpoint(hosts[1], 9990))
    root, worker = session.data(0, 1), session.data(1, 0)
    data = b"".join(
        (
            file_header(),
            recorded.opened(1_000_000_000_123_456_789),
            recorded.data(1_000_000_000_123_456_790, root, from_dialler=True),
            recorded.data(1_000_000_000_123_456_791, worker, from_dialler=False),
            recorded.closed(1_000_000_000_123_456_792, from_dialler=True),
            recorded.closed(1_000_000_000_123_456_793, from_dialler=False),
        )
    )
    dissection, events = dissect_bytes(data)
    check_accounts(dissection, events)
    assert dissection.totals.explained_bytes == len(root) + len(worker)
    assert (dissection.totals.missing_bytes, dissection.totals.unexplained_bytes) == (0, 0)
    assert events[0].time == 1_000_000_000_123_456_789
    assert not [event for event in events if isinstance(event, NoticeEvent)]


def test_addresses_of_two_families_are_refused() -> None:
    with pytest.raises(ValueError, match="different address families"):
        RecordedConnection(Endpoint("10.0.0.1", 1), Endpoint("::1", 2))


# Peers ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40)), st.binary(max_size=50))
def test_a_peer_is_replaced_however_the_greeting_comes(cuts: list[int], after: bytes) -> None:
    data = bytes(Connection(Role.ROOT).send(_GREETING)) + after
    rewriter = PeerRewriter({_OLD: _NEW})
    out, at = b"", 0
    for n in [*cuts, len(data)]:
        out += rewriter.pass_on(data[at : at + n]) if data[at : at + n] else b""
        at += n
    out += rewriter.rest()
    expected = Greeting(3, 1, (_GREETING.peers[0], _NEW))
    assert out == bytes(Connection(Role.ROOT).send(expected)) + after


@given(st.binary(max_size=80), st.lists(st.integers(1, 9)))
def test_what_is_no_greeting_passes_as_it_is(tail: bytes, cuts: list[int]) -> None:
    data = b"\xff\xff" + tail
    rewriter = PeerRewriter({_OLD: _NEW})
    out, at = b"", 0
    for n in [*cuts, len(data)]:
        out += rewriter.pass_on(data[at : at + n]) if data[at : at + n] else b""
        at += n
    assert out + rewriter.rest() == data


def test_without_peers_nothing_is_held() -> None:
    rewriter = PeerRewriter({})
    data = memoryview(b"\x03\0")
    assert rewriter.pass_on(data) is data


# A real cluster ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cluster_of_four_runs_through_taps(tmp_path: Path) -> None:
    recording = Kept()
    lines: list[str] = []
    with ExitStack() as stack:
        workers = [stack.enter_context(worker_process()) for _ in range(3)]
        taps = [
            TapServer(
                Route(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", worker.port)),
                recording,
                lines.append,
                {},
            )
            for worker in workers
        ]
        for tap in taps:
            stack.callback(tap.close)
        direct = infer("--workers", *(f"127.0.0.1:{worker.port}" for worker in workers))
        tapped = infer("--workers", *(f"127.0.0.1:{tap.port}" for tap in taps))
    assert tapped["text"] == direct["text"]
    dissection, events = dissect_bytes(bytes(recording))
    check_accounts(dissection, events)
    assert (dissection.totals.missing_bytes, dissection.totals.unexplained_bytes) == (0, 0)
    links = {(s.sender, s.receiver) for s in dissection.streams}
    assert links == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert lines == []
    (tmp_path / "session.pcapng").write_bytes(recording)
    assert main(["diff", str(tmp_path / "session.pcapng"), str(tmp_path / "session.pcapng")]) == 0


@pytest.mark.slow
def test_a_reason_passes_a_tap_and_is_dissected() -> None:
    recording = Kept()
    with worker_process("--max-memory", "100k") as worker:
        tap = TapServer(
            Route(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", worker.port)), recording, print, {}
        )
        with closing(tap), pytest.raises(subprocess.CalledProcessError) as failed:
            infer("--workers", f"127.0.0.1:{tap.port}")
    assert failed.value.returncode == 3
    [said] = [line for line in failed.value.stderr.splitlines() if "refuses" in line]
    _, events = dissect_bytes(bytes(recording))
    [reason] = [
        event.message.reason
        for event in events
        if isinstance(event, MessageEvent) and isinstance(event.message, Refusal)
    ]
    assert said.endswith(f"node 1 (127.0.0.1:{tap.port}) refuses: {reason}")
    assert "the configuration needs" in reason


@pytest.mark.slow
def test_peers_are_led_through_another_tap() -> None:
    """The root knows the first worker itself; the peer list of the tap sends it to the second's tap."""
    recording = Kept()
    with ExitStack() as stack:
        workers = [stack.enter_context(worker_process()) for _ in range(3)]
        ports = [worker.port for worker in workers]
        second = TapServer(
            Route(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", ports[1])), recording, print, {}
        )
        stack.callback(second.close)
        led = {Peer("127.0.0.1", ports[1]): Peer("127.0.0.1", second.port)}
        first = TapServer(
            Route(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", ports[0])), recording, print, led
        )
        stack.callback(first.close)
        infer("--workers", f"127.0.0.1:{first.port}", *(f"127.0.0.1:{port}" for port in ports[1:]))
    dissection, events = dissect_bytes(bytes(recording))
    check_accounts(dissection, events)
    greeting = next(
        event.message
        for event in events
        if isinstance(event, MessageEvent) and isinstance(event.message, Greeting)
    )
    assert [peer.port for peer in greeting.peers] == [second.port, ports[2]]
    peers = {(s.sender, s.receiver) for s in dissection.streams if s.link is LinkKind.PEER}
    assert peers == {(1, 2), (2, 1)}
    assert dissection.totals.unexplained_bytes == 0


@pytest.mark.slow
def test_the_command_shows_and_records_until_it_is_stopped(tmp_path: Path) -> None:
    record = tmp_path / "session.pcapng"
    with worker_process() as worker:
        command = [sys.executable, "-m", "dllama_proto", "tap", "--listen", "127.0.0.1:0"]
        command += [
            "--to",
            f"127.0.0.1:{worker.port}",
            "--record",
            str(record),
            "--kind",
            "control,greeting",
        ]
        tap = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert tap.stderr is not None
        line = tap.stderr.readline()
        match = re.search(r"listening on 127\.0\.0\.1:(\d+), passing on to", line)
        assert match, line
        infer("--workers", f"127.0.0.1:{match[1]}")
        tap.send_signal(signal.SIGINT)
        out, err = tap.communicate(timeout=30)
    assert (tap.returncode, err) == (0, "")
    assert out.startswith(f"tap 127.0.0.1:0 > 127.0.0.1:{worker.port}, from 2")
    assert "you are worker 0 of 1" in out
    n_control = sum(event.kind is Kind.CONTROL for event in dissect_pcap(record))
    assert out.count("node 0 > node 1    control ") == n_control > 2
    assert "0 bytes missing, 0 unexplained" in out
    dissection = dissect_pcap(record)
    events = list(dissection)
    check_accounts(dissection, events)
    assert dissection.totals.unexplained_bytes == 0


_TAP = [sys.executable, "-m", "dllama_proto", "tap", "--listen", "127.0.0.1:0", "--to"]


def test_a_tap_ends_with_what_shows_its_messages_if_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "bad.t").write_bytes(b"no tokenizer")
    command = [*_TAP, "127.0.0.1:9", "--tokenizer", str(tmp_path / "bad.t")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    errors = done.stderr.splitlines()
    assert sum(f"{tmp_path / 'bad.t'}: " in line for line in errors) == 1
    assert errors[-1] == (
        "dllama-proto tap: dllama-proto dissect, which shows the messages, ended with exit code 2; so does the tap"
    )


def test_a_tap_goes_on_if_nobody_looks_any_more(tmp_path: Path) -> None:
    """A session must not break because somebody closed the window with its messages."""
    record = tmp_path / "session.pcapng"
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = f"127.0.0.1:{server.getsockname()[1]}"
        command = [*_TAP, to, "--record", str(record)]
        tap = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert tap.stderr is not None
        assert tap.stdout is not None
        match = re.search(r"listening on 127\.0\.0\.1:(\d+)", tap.stderr.readline())
        assert match
        tap.stdout.close()
        greeting = bytes(Connection(Role.ROOT).send(Greeting(1, 0, ())))
        with socket.create_connection(("127.0.0.1", int(match[1]))) as root:
            worker, _ = server.accept()
            with worker:
                root.sendall(greeting)
                assert worker.recv(len(greeting), socket.MSG_WAITALL) == greeting
                line = tap.stderr.readline()
                assert "nothing is shown any more" in line
                assert f"still passed on and recorded in {record}" in line
                worker.sendall(b"after")
                assert root.recv(5, socket.MSG_WAITALL) == b"after"
        tap.send_signal(signal.SIGINT)
        assert tap.wait(30) == 0
        tap.stderr.close()
    assert b"after" in record.read_bytes()


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("buffering", [0, 1 << 20])
def test_a_full_disk_ends_the_recording_and_nothing_else(buffering: int) -> None:
    """Who passes a connection's bytes on must not hear of it: the connection would hang."""
    told: list[OSError] = []
    shown = BytesIO()
    record = Recorder(b"header", told.append)
    record.add(FULL_DISK.open("wb", buffering=buffering))
    record.add(shown)
    for number in range(3):
        record(b"%d" % number)
    assert shown.getvalue() == b"header012"
    record.close()
    assert [error.errno for error in told] == [errno.ENOSPC]


def test_arguments_that_do_not_fit_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--listen", "x"], ["--listen", "127.0.0.1:0", "--to", "1:2", "--peers", "a"]):
        with pytest.raises(SystemExit) as ended:
            main(["tap", *wrong])
        assert ended.value.code == 2
    more = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"]
    assert main(["tap", *more]) == 2
    assert "every --listen needs its --to" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["inspect", "--no-such-option", "x.m"])


def test_a_worker_that_is_not_there_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        lines: list[str] = []
        told = threading.Event()

        def tell(line: str) -> None:
            lines.append(line)
            told.set()

        to = Endpoint("127.0.0.1", taken.getsockname()[1])
        tap = TapServer(Route(Endpoint("127.0.0.1", 0), to), Kept(), tell, {})
        with socket.create_connection(("127.0.0.1", tap.port)) as client:
            assert client.recv(1) == b""
        assert told.wait(10)
        tap.close()
    assert f"cannot connect to {to}" in lines[0]


# Speed ------------------------------------------------------------------------------------------------


def _round_trips(port: int, n: int) -> list[float]:
    times = []
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(n):
            began = time.perf_counter()
            client.sendall(b"12345678")
            client.recv(8, socket.MSG_WAITALL)
            times.append(time.perf_counter() - began)
    return times


_ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
for _ in range(2):
    peer, _ = listener.accept()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := peer.recv(64):
        peer.sendall(data)
"""


@pytest.mark.slow
def test_a_tap_adds_little_to_each_message() -> None:
    """Half of what a round trip takes longer; on a busy machine more than when it is at rest."""
    echo = subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE, text=True)
    assert echo.stdout is not None
    port = int(echo.stdout.readline())
    direct = _round_trips(port, 300)
    route = Route(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", port))
    tap = TapServer(route, Kept(), print, {})
    tapped = _round_trips(tap.port, 300)
    echo.wait(10)
    echo.stdout.close()
    tap.close()
    assert (median(tapped) - median(direct)) / 2 < 500e-6
    print(f"a tap adds {(median(tapped) - median(direct)) / 2 * 1e6:.0f} µs to a message")
