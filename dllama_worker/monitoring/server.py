"""The HTTP end of a worker: ``/metrics`` for Prometheus, ``/healthz`` for what supervises it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.errors import UsageError, cannot_listen
from dllama_worker.monitoring.messages import MessageCounts
from dllama_worker.monitoring.monitor import Monitor, WorkerPhase

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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
_MAX_REQUESTS = 8
_PLAIN = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))


class MetricsServer:
    """Answers on an address of its own, in threads of its own, until it is closed.

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
        self._server: _Server | None = None

    def start(self) -> tuple[str, int]:
        """Start to answer, unless it does already; return the address. Raises MachineError."""
        if self._server is None:
            host, port = self._address
            try:
                self._server = _Server(host, port, _application(self._monitor, self._messages))
            except OSError as error:
                advice = "choose another --metrics-host or --metrics-port"
                raise cannot_listen(f"{Endpoint(host, port)} for metrics", error, advice) from error
            self._messages.start()
            threading.Thread(
                target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
            ).start()
        name = self._server.socket.getsockname()
        return str(name[0]), int(name[1])

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._messages.stop()
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _application(monitor: Monitor, messages: MessageCounts) -> WSGIApplication:
    from prometheus_client import make_wsgi_app

    from dllama_worker.monitoring.collector import make_registry

    metrics: WSGIApplication = make_wsgi_app(make_registry(monitor, messages))

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start_response)
        if path == "/healthz":
            phase = monitor.phase
            status = "503 Service Unavailable" if phase is WorkerPhase.DRAINING else "200 OK"
            start_response(status, list(_PLAIN))  # which adds the length to it
            return [f"{_HEALTH[phase]}\n".encode()]
        start_response("404 Not Found", list(_PLAIN))
        return [b"there are /metrics and /healthz\n"]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request, a few requests at a time: a crowd is closed on, not queued."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, application: WSGIApplication) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._places = threading.BoundedSemaphore(_MAX_REQUESTS)
        super().__init__((host, port), _Handler)
        self.set_app(application)

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close the connection where all threads are taken."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: a client that closed its connection is no error here."""


class _Handler(WSGIRequestHandler):
    timeout = timeouts.METRICS_REQUEST

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""
