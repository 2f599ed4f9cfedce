"""What a worker counts, and what it answers those who ask: numbers first, then a real process."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dllama_ops.errors import KernelDataError
from dllama_worker.errors import NodeError
from dllama_worker.monitoring import collector
from dllama_worker.monitoring.messages import MessageCounts
from dllama_worker.monitoring.monitor import Monitor, WorkerPhase
from dllama_worker.monitoring.request_loop import _MAX_CLIENTS, RequestLoop
from dllama_worker.monitoring.server import MetricsServer
from dllama_worker.node.memory import MemoryNeed
from dllama_worker.node.profile import ForwardProfile, ProfileSchedule
from dllama_worker.node.transport import Link
from tests.helpers.captures import load
from tests.helpers.processes import WorkerProcess, worker_process
from tests.worker.replay import play, read_recording

CASE = "tiny-q40-2n"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 30
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.02)
    return result


@contextmanager
def monitored_worker(*arguments: str) -> Iterator[tuple[WorkerProcess, str]]:
    with worker_process("--metrics-port", "0", *arguments) as worker:
        entry = worker.wait_for("metrics")
        yield worker, f"{entry['host']}:{entry['port']}"


@pytest.fixture
def link() -> Iterator[Link]:
    ours, theirs = socket.create_server(("127.0.0.1", 0)), None
    with ours:
        theirs = socket.create_connection(ours.getsockname())
        accepted, _ = ours.accept()
    link = Link(theirs, "node 0")
    with accepted:
        yield link
    link.close()


# Numbers ---------------------------------------------------------------------------------------------


def test_the_first_forward_of_each_stage_is_profiled_then_one_an_interval() -> None:
    now = 100.0
    sampler = ProfileSchedule(interval=1.0, clock=lambda: now)
    assert [sampler.is_due("decode"), sampler.is_due("decode"), sampler.is_due("prefill")] == [
        True,
        False,
        True,
    ]
    now = 100.9
    assert not sampler.is_due("decode")
    now = 101.0
    assert [sampler.is_due("decode"), sampler.is_due("decode")] == [True, False]


def test_seconds_are_divided_as_the_last_profile_says_and_add_up_exactly() -> None:
    monitor = Monitor(profiled=True)
    assert monitor.wants_profile(1)
    monitor.add_forward(1, 1.0, 0.5, ForwardProfile({"MATMUL": 0.75, "CAST": 0.25}, {"NODE_SLICES": 1.0}))
    assert not monitor.wants_profile(1)
    monitor.add_forward(1, 3.0, 0.5, None)
    monitor.add_forward(1, 2.0, 0.0, ForwardProfile({"MATMUL": 0.5, "ROPE": 0.5}, {"NODE_SLICES": 1.0}))
    monitor.add_forward(32, 10.0, 0.0, ForwardProfile({"MATMUL": 1.0}, {}))
    now = monitor.snapshot()
    assert now.op_seconds == {
        ("MATMUL", "decode"): 4.0,
        ("CAST", "decode"): 1.0,
        ("ROPE", "decode"): 1.0,
        ("MATMUL", "prefill"): 10.0,
    }
    assert now.sync_seconds["NODE_SLICES", "decode"] == 1.0
    assert (now.tokens, now.forwards) == ({"prefill": 32, "decode": 3}, {"prefill": 1, "decode": 3})
    assert monitor.snapshot().op_seconds == now.op_seconds


def test_seconds_that_no_profile_divides_are_no_total() -> None:
    """Their name must not look like the sum of all others; without seconds there is no such series."""
    monitor = Monitor(profiled=True)
    monitor.add_forward(1, 1.0, 0.0, ForwardProfile({}, {}))
    monitor.add_forward(1, 2.0, 1.0, ForwardProfile({"CAST": 1.0}, {"NODE_SLICES": 1.0}))
    now = monitor.snapshot()
    assert now.op_seconds == {("UNPROFILED", "decode"): 1.0, ("CAST", "decode"): 2.0}
    assert now.sync_seconds == {("NODE_SLICES", "decode"): 1.0}


def test_counters_outlive_the_session_and_its_memory_does_not(link: Link) -> None:
    monitor = Monitor()
    for _ in range(2):
        monitor.begin_session({0: link})
        monitor.load(MemoryNeed(pipes=1, buffers=2, weights=3))
        link.sent_bytes, link.received_bytes = 10, 20
        assert monitor.phase is WorkerPhase.LOADING
        monitor.serve()
        before = monitor.snapshot()
        monitor.end_session()
        after = monitor.snapshot()
        assert (before.sent_bytes, before.received_bytes) == (after.sent_bytes, after.received_bytes)
        assert before.memory == MemoryNeed(pipes=1, buffers=2, weights=3)
        assert (after.memory, after.phase) == (None, WorkerPhase.LISTENING)
    assert (after.sessions, after.sent_bytes, after.received_bytes) == (2, {0: 20}, {0: 40})


def test_every_kind_of_error_is_there_from_the_start() -> None:
    kinds = {kind.__name__ for kind in NodeError.__subclasses__()} - {"UsageError", "BadLogits"}  # a root's
    kinds |= {"RemoteProtocolError", KernelDataError.__name__}
    text = generate_latest(collector.make_registry(Monitor(), MessageCounts())).decode()
    found = {
        dict(labels)["kind"]
        for name, labels in samples_of(text)
        if name == "dllama_worker_session_errors_total"
    }
    assert found == kinds


# A real server ---------------------------------------------------------------------------------------


def test_health_follows_the_phases_and_other_paths_are_not_there() -> None:
    monitor = Monitor()
    server = MetricsServer("127.0.0.1", 0, monitor)
    host, port = server.start()
    address = f"{host}:{port}"
    try:
        assert get(address, "/healthz") == (200, "listening\n")
        monitor.begin_session({})
        assert get(address, "/healthz") == (200, "loading\n")
        monitor.load(MemoryNeed(1, 2, 3))
        assert get(address, "/healthz") == (200, "loading\n")
        monitor.serve()
        assert get(address, "/healthz") == (200, "serving\n")
        monitor.drain()
        assert get(address, "/healthz") == (503, "draining\n")
        assert get(address, "/")[0] == 404
    finally:
        server.close()
    with pytest.raises(URLError):
        get(address, "/healthz")


@contextmanager
def request_loop(seconds: float = 30.0) -> Iterator[tuple[str, int]]:
    """A loop that answers with the head it got."""
    listener = socket.create_server(("127.0.0.1", 0))
    loop = RequestLoop(listener, lambda head, caller: b"got " + head, seconds)
    address = listener.getsockname()
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield address
    finally:
        loop.stop()
        thread.join(30)


def call(address: tuple[str, int], *, source: str = "127.0.0.1", said: bytes = b"") -> socket.socket:
    sock = socket.create_connection(address, timeout=30, source_address=(source, 0))
    sock.sendall(said)
    return sock


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def test_a_crowd_of_silent_callers_keeps_nobody_out() -> None:
    server = MetricsServer("127.0.0.1", 0, Monitor())
    address = server.start()
    with ExitStack() as stack:
        stack.callback(server.close)
        silent = [stack.enter_context(call(address)) for _ in range(_MAX_CLIENTS + 5)]
        assert get(f"{address[0]}:{address[1]}", "/healthz") == (200, "listening\n")
        assert all(map(is_closed, silent[:6]))  # the oldest made room, for five and for who asks


def test_a_crowd_of_one_address_crowds_out_only_itself() -> None:
    with request_loop() as address, ExitStack() as stack:
        other = stack.enter_context(call(address, source="127.0.0.2"))
        crowd = [stack.enter_context(call(address)) for _ in range(_MAX_CLIENTS)]
        assert is_closed(crowd[0])
        other.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert other.recv(100) == b"got GET / HTTP/1.0\r\n\r\n"


def test_who_drips_has_a_total_of_seconds() -> None:
    with request_loop(seconds=0.2) as address, call(address) as dripping:
        assert _sends_until_closed(dripping, b"a", interval=0.02)


def test_a_head_without_an_end_is_closed_on() -> None:
    with request_loop() as address, call(address) as endless:
        assert _sends_until_closed(endless, bytes(1000))


def _sends_until_closed(sock: socket.socket, said: bytes, interval: float = 0.0) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            sock.sendall(said)
        except ConnectionError:
            return True
        time.sleep(interval)
    return False


def test_what_is_no_request_gets_an_answer_of_its_own() -> None:
    server = MetricsServer("127.0.0.1", 0, Monitor())
    address = server.start()
    try:
        for said, status in ((b"rubbish\r\n\r\n", b"400"), (b"PUT / HTTP/1.1\r\n\r\n", b"501")):
            with call(address, said=said) as sock, sock.makefile("rb") as answer:
                assert status in answer.read()
    finally:
        server.close()


# A real worker ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_session_is_seen_in_the_metrics() -> None:
    session = load(CASE)
    with monitored_worker() as (worker, address):
        assert get(address, "/healthz") == (200, "listening\n")
        play(session, read_recording(session, 1), worker.port)
        evaluated = worker.wait_for("evaluated")
        worker.wait_for("session_ended")
        with socket.create_connection(("127.0.0.1", worker.port)) as root:
            root.sendall(struct.pack("<II", 1, 0))  # a greeting, and nothing after it
        worker.wait_for("session_failed")
        status, text = get(address, "/metrics")
        assert status == 200
        found = samples_of(text)
        assert worker.terminate() == 0

    def value(name: str, **labels: str) -> float:
        return found[f"dllama_worker_{name}", tuple(sorted(labels.items()))]

    def total(name: str) -> float:
        return sum(number for (key, _), number in found.items() if key == f"dllama_worker_{name}")

    assert value("sessions_total") == 1
    assert value("session_errors_total", kind="PeerLost") == 1
    assert value("log_messages_total", event="session_failed", level="warning") == 1
    assert (
        total("tokens_total")
        == evaluated["tokens"]
        == sum(rows for _, rows in session.control_packets[:-1])
    )
    assert total("forwards_total") == evaluated["steps"]
    assert total("op_seconds_total") == pytest.approx(evaluated["op_seconds"], abs=1e-5)
    assert total("sync_seconds_total") == pytest.approx(evaluated["sync_seconds"], abs=1e-5)
    assert value("op_seconds_total", op="MATMUL", stage="decode") > 0
    assert value("sync_seconds_total", sync="NODE_SLICES", stage="decode") > 0
    assert value("link_received_bytes_total", node="0") == len(session.data(0, 1))
    assert value("link_sent_bytes_total", node="0") == len(session.data(1, 0))


def test_without_the_library_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from dllama_worker.__main__ import main\n"
        "sys.exit(main(['--metrics-port', '0']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 2
    assert "pip install prometheus-client" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_metrics_port_is_the_machines_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "dllama_worker", "--port", "0", "--metrics-port", str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.returncode == 4
    assert f"cannot listen on 127.0.0.1:{port} for metrics" in result.stderr


# A real Prometheus -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    monitor = Monitor()
    monitor.add_forward(1, 1.0, 0.5, ForwardProfile({"MATMUL": 1.0}, {"NODE_SLICES": 1.0}))
    text = generate_latest(collector.make_registry(monitor, MessageCounts()))
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (Debian: prometheus)")
def test_a_real_prometheus_scrapes_a_real_worker(tmp_path: Path) -> None:
    session = load(CASE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with monitored_worker() as (worker, address):
        config = {
            "scrape_configs": [
                {
                    "job_name": "dllama",
                    "scrape_interval": "200ms",
                    "scrape_timeout": "200ms",
                    "static_configs": [{"targets": [address]}],
                }
            ]
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        with (tmp_path / "log").open("w") as log:
            prometheus = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={tmp_path}/prometheus.yml",
                    f"--storage.tsdb.path={tmp_path}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stderr=log,
            )
        try:
            query = _Prometheus(port)
            wait_until(lambda: query("up") == [1.0], "Prometheus to reach the worker")
            play(session, read_recording(session, 1), worker.port)
            tokens = worker.wait_for("evaluated")["tokens"]
            wait_until(
                lambda: query("sum(dllama_worker_tokens_total)") == [float(tokens)], "the tokens to be seen"
            )
            assert query('dllama_worker_phase{phase="listening"}') == [1.0]
            [matmuls] = query('sum(dllama_worker_op_seconds_total{op="MATMUL"})')
            assert matmuls > 0
        finally:
            prometheus.terminate()
            prometheus.wait(30)


class _Prometheus:
    """Asks for the present values of an expression; none while there is no answer."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query?query="

    def __call__(self, expression: str) -> list[float]:
        try:
            with urlopen(self._url + quote(expression), timeout=5) as answer:  # noqa: S310 # loopback
                result = json.load(answer)["data"]["result"]
        except OSError:
            return []
        return [float(entry["value"][1]) for entry in result]
