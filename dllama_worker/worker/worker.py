"""A worker from listening to the end of a session; one bad peer costs one session, never the process."""

from __future__ import annotations

import gc
import signal
import threading
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

from dllama_ops.errors import KernelDataError
from dllama_proto.endpoint import Endpoint
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_worker.errors import ExitCode, NodeError, UsageError, exit_code
from dllama_worker.model.reader import open_model
from dllama_worker.monitoring.monitor import Monitor
from dllama_worker.monitoring.server import MetricsServer
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.node.tracing import Tracer
from dllama_worker.report import Report
from dllama_worker.worker.link_watch import Stopped
from dllama_worker.worker.network import NetworkClient
from dllama_worker.worker.options import DEFAULT_HOST, DEFAULT_PORT, WorkerOptions
from dllama_worker.worker.session import WorkerSession

__all__ = ["Worker", "run_worker"]


class Worker:
    """A worker node, step by step (``connect``, ``load_weights``, ``run``) or for good (``serve_forever``).

    The steps raise what went wrong: PeerLost and RemoteProtocolError for the others' faults, ConfigRejected,
    WeightMismatch, MachineError; ``serve_forever`` reports it and serves the next root.
    """

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        model_path: str | Path | None = None,
        *,
        n_threads: int = 1,
        kernels: str = "",
        options: WorkerOptions | None = None,
        report: Report | None = None,
    ) -> None:
        """Take the usual arguments, or ``options`` with everything; listens only when asked to.

        Raises UsageError where the model or the kernels asked for cannot be used.
        """
        self.options = options or WorkerOptions(
            host=host,
            port=port,
            n_threads=n_threads,
            model=None if model_path is None else Path(model_path),
            kernels=kernels,
        )
        self._report = report or Report()
        self._model = None if self.options.model is None else open_model(self.options.model)
        self._tracer = None if self.options.trace is None else Tracer(self.options.trace)
        self._monitor = Monitor(profiled=self.options.metrics_port is not None)
        self._metrics = None
        if self.options.metrics_port is not None:
            self._metrics = MetricsServer(
                self.options.metrics_host, self.options.metrics_port, self._monitor
            )
        self._table = choose_kernels(self.options.kernels, self._report)
        self._network = NetworkClient(
            self.options.host,
            self.options.port,
            allow=self.options.allow,
            handshake_timeout=self.options.handshake_timeout,
            keepalive=self.options.keepalive,
            report=self._report,
        )
        self._session: WorkerSession | None = None
        self._stopping = threading.Event()

    def listen(self) -> tuple[str, int]:
        """Start to listen and return the address; ``connect`` does it by itself. Raises MachineError."""
        address = self._network.listen()
        if self._metrics is not None:
            self._metrics.start()
        return address

    def connect(self) -> None:
        """Wait for a root, join the mesh, take the configuration and verify it."""
        self.disconnect()
        self._report.end_session()
        self.listen()
        greeting = self._network.connect(self._monitor.join)
        self._monitor.begin_session(self._network.links)
        self._session = WorkerSession(
            self._network,
            greeting,
            self.options,
            self._table,
            self._report,
            self._monitor,
            self._model,
            self._tracer,
        )
        self._session.configure()

    def load_weights(self) -> None:
        """Take the weights from the root, the local model, or both."""
        self._current().load_weights()

    def run(self) -> str:
        """Evaluate whatever the root asks for until the session ends; return why it ended."""
        return self._current().run()

    def disconnect(self) -> None:
        """End the session, if there is one, and give its memory back."""
        self._session = None
        self._monitor.end_session()
        self._network.disconnect()

    def drain(self) -> None:
        """End after the forward that runs, if one does, else now; called again, now. For signal handlers."""
        session = self._session
        if self._stopping.is_set() or session is None or not session.drain():
            self.stop()
            return
        self._stopping.set()
        self._monitor.drain()
        self._report.info("draining", "ending after this forward; a second signal ends it at once")

    def stop(self) -> None:
        """Make whatever runs end now; safe from any thread and from a signal handler."""
        self._stopping.set()
        self._monitor.drain()
        self._network.interrupt()

    def close(self) -> None:
        """End everything."""
        self.disconnect()
        self._report.end_session()
        self._network.close()
        if self._tracer is not None:
            self._tracer.close()
        if self._metrics is not None:
            self._metrics.close()

    def serve_forever(self) -> None:
        """Serve one root after another until :meth:`stop`. Raises MachineError if it cannot listen."""
        self.announce()
        while not self._stopping.is_set():
            self.serve_once()

    def serve_once(self) -> ExitCode:
        """Serve one session, report how it ended, and return the exit code for it. Raises MachineError."""
        self.listen()
        failure: Exception | None = None
        reason = ""
        try:
            self.connect()
            self.load_weights()
            reason = self.run()
        except Stopped:
            return ExitCode.OK
        except Exception as error:
            failure = error
        finally:
            # First of all, so that whoever reads how it ended finds the listener open.
            self.disconnect()
        if failure is None:
            self._report.info("session_ended", f"session ended: {reason}", reason=reason)
            return ExitCode.OK
        if self._stopping.is_set():
            return ExitCode.OK
        code = _blame(failure)
        self._tell_failure(failure, code)
        # The frames of its traceback hold what the session had: give that back now, not some day.
        failure = None
        gc.collect()
        return code

    def announce(self) -> None:
        """Listen, and say where and for whom. Raises MachineError."""
        host, port = self.listen()
        note = ""
        if ip_address(host).is_loopback:
            note = " (this machine only; --host 0.0.0.0 opens it to the network, without authentication)"
        self._report.info("listening", f"listening on {Endpoint(host, port)}{note}", host=host, port=port)
        if not note and not self.options.allow:
            self._report.warning(
                "open_to_all",
                f"whoever reaches {Endpoint(host, port)} can use this worker, there are no passwords: "
                "name the networks of root and workers with --allow",
            )
        if self._metrics is not None:
            host, port = self._metrics.start()
            self._report.info(
                "metrics",
                f"metrics at http://{Endpoint(host, port)}/metrics, health at /healthz",
                host=host,
                port=port,
            )

    def _current(self) -> WorkerSession:
        if self._session is None:
            raise UsageError("there is no session: call connect first")
        return self._session

    def _tell_failure(self, error: Exception, code: ExitCode) -> None:
        kind = type(error).__name__
        self._monitor.add_error(kind)
        if code is ExitCode.INTERNAL:
            text = f"session ended by a bug of this program, please report it: {kind}: {error}"
            self._report.error("session_failed", text, traceback=error, kind=kind)
        else:
            self._report.warning("session_failed", f"session ended: {error}", kind=kind, reason=str(error))


def _blame(error: Exception) -> ExitCode:
    if isinstance(error, KernelDataError):  # the root asked for a position or token that does not exist
        return ExitCode.PEER
    return exit_code(error)


def run_worker(options: WorkerOptions, report: Report, *, once: bool) -> int:
    """Run the command: serve, end between two forwards on SIGTERM and Ctrl-C, return the exit code."""
    try:
        worker = Worker(options=options, report=report)
    except NodeError as error:
        report.error("cannot_start", str(error))
        return error.exit_code

    def stop(signum: int, frame: FrameType | None) -> None:
        worker.drain()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        if once:
            worker.announce()
            return worker.serve_once()
        worker.serve_forever()
    except (NodeError, RemoteProtocolError, LocalProtocolError) as error:
        report.error("cannot_start", str(error))
        return exit_code(error)
    finally:
        worker.close()
        report.info("stopped", "stopped")
    return ExitCode.OK
