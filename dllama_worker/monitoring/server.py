"""The HTTP end of a worker: ``/metrics`` for Prometheus, ``/healthz`` for what supervises it."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.errors import UsageError, cannot_listen
from dllama_worker.monitoring.messages import MessageCounts
from dllama_worker.monitoring.monitor import Monitor, WorkerPhase
from dllama_worker.monitoring.request_loop import Answer, RequestLoop

__all__ = ["MetricsServer"]

#: What ``/healthz`` says in each phase; whoever asks need not know how a session is made up.
_HEALTH = {
    WorkerPhase.LISTENING: "listening",
    WorkerPhase.JOINING: "loading",
    WorkerPhase.CONFIGURING: "loading",
    WorkerPhase.LOADING: "loading",
    WorkerPhase.SERVING: "serving",
    WorkerPhase.DRAINING: "draining",
}
_BACKLOG = 128


class MetricsServer:
    """Answers on an address of its own, in a thread of its own, until it is closed.

    Raises UsageError where prometheus_client is not installed.
    """

    def __init__(self, host: str, port: int, monitor: Monitor) -> None:
        if find_spec("prometheus_client") is None:
            raise UsageError(
                "--metrics-port needs prometheus_client, which is not installed: "
                "pip install prometheus-client"
            )
        self._address = (host, port)
        self._monitor = monitor
        self._messages = MessageCounts()
        self._bound: tuple[str, int] | None = None
        self._loop: RequestLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> tuple[str, int]:
        """Start to answer, unless it does already; return the address. Raises MachineError."""
        if self._bound is None:
            host, port = self._address
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
            except OSError as error:
                advice = "choose another --metrics-host or --metrics-port"
                raise cannot_listen(f"{Endpoint(host, port)} for metrics", error, advice) from error
            name = listener.getsockname()
            self._bound = str(name[0]), int(name[1])
            self._messages.start()
            self._loop = RequestLoop(
                listener, _answering(self._monitor, self._messages), timeouts.METRICS_REQUEST
            )
            self._thread = threading.Thread(target=self._loop.run, name="metrics", daemon=True)
            self._thread.start()
        return self._bound

    def close(self) -> None:
        """Answer no more."""
        if self._loop is not None and self._thread is not None:
            self._messages.stop()
            self._loop.stop()
            self._thread.join()
        self._bound = self._loop = self._thread = None


def _answering(monitor: Monitor, messages: MessageCounts) -> Answer:
    from prometheus_client import MetricsHandler

    from dllama_worker.monitoring.collector import make_registry

    class Request(MetricsHandler):
        """One request in memory: its head is read, what it writes is the answer."""

        registry = make_registry(monitor, messages)

        def __init__(self, head: bytes, caller: tuple[str, int]) -> None:
            self.client_address = caller
            self.answer = BytesIO()
            self.rfile, self.wfile = BytesIO(head), self.answer
            self.handle()

        def do_GET(self) -> None:  # noqa: N802
            path = urlsplit(self.path).path
            if path == "/metrics":
                super().do_GET()
            elif path == "/healthz":
                phase = monitor.phase
                _say(self, 503 if phase is WorkerPhase.DRAINING else 200, _HEALTH[phase])
            else:
                _say(self, 404, "there are /metrics and /healthz")

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: probes come every few seconds."""

    def answer(head: bytes, caller: tuple[str, int]) -> bytes:
        return Request(head, caller).answer.getvalue()

    return answer


def _say(request: BaseHTTPRequestHandler, status: int, text: str) -> None:
    """Answer with one line."""
    body = f"{text}\n".encode()
    request.send_response(status)
    request.send_header("Content-Type", "text/plain; charset=utf-8")
    request.send_header("Content-Length", str(len(body)))
    request.send_header("Cache-Control", "no-store")
    request.end_headers()
    request.wfile.write(body)
