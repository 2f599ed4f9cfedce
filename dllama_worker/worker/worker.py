"""A worker from listening to the end of a session; one bad peer costs one session, never the process."""

from __future__ import annotations

import gc
import threading
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

from dllama_proto.endpoint import Endpoint
from dllama_proto.exit_codes import ExitCode, exit_code
from dllama_worker.errors import MachineError, UsageError
from dllama_worker.model.opening import open_model
from dllama_worker.monitoring.monitor import Monitor
from dllama_worker.monitoring.server import MetricsServer
from dllama_worker.node.kernels import choose_kernels, tell_compute
from dllama_worker.node.tls import load_tls
from dllama_worker.node.tracing import Tracer
from dllama_worker.report import Report
from dllama_worker.signals import on_end_signal
from dllama_worker.worker.link_watch import Stopped
from dllama_worker.worker.network import NetworkClient
from dllama_worker.worker.options import DEFAULT_HOST, DEFAULT_PORT, WorkerOptions
from dllama_worker.worker.session import WorkerSession

__all__ = ["Worker", "run_worker"]


class Worker:
    """A worker node, step by step (``connect``, ``load_weights``, ``run``) or for good (``serve_forever``).

    The steps raise what went wrong: PeerLost and RemoteProtocolError where another node is to blame,
    ConfigRejected, WeightMismatch, MachineError; ``serve_forever`` reports it and serves the next root.

    As a context manager it listens inside the ``with`` statement, at :attr:`address`. Leaving that stops it, also
    where it serves in another thread. ``start`` serves in a thread of its own::

        with Worker(port=0) as worker:
            worker.start()
            print(f"dllama-root inference --prompt Hello --workers {worker.address}")
    """

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        model_path: str | Path | None = None,
        *,
        n_threads: int = 0,
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
        self._tracer = None if self.options.trace is None else Tracer(self.options.trace, self._report)
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
            tls=None if self.options.tls is None else load_tls(self.options.tls),
            report=self._report,
        )
        self._session: WorkerSession | None = None
        self._stopping = threading.Event()
        #: Held by whoever waits on the links, so that nobody closes them meanwhile.
        self._in_use = threading.RLock()
        self._thread: threading.Thread | None = None
        self._address: Endpoint | None = None

    def __enter__(self) -> Worker:
        """Listen. Raises MachineError."""
        try:
            self.listen()
        except MachineError:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> Endpoint:
        """Where it listens; with port 0 the system has chosen the port. Raises UsageError before and after."""
        if self._address is None:
            raise UsageError("the worker does not listen: call listen, or use it in a with statement")
        return self._address

    def listen(self) -> tuple[str, int]:
        """Start to listen and return the address; ``connect`` does it by itself. Raises MachineError."""
        address = self._network.listen()
        self._address = Endpoint(*address)
        if self._metrics is not None:
            self._metrics.start()
        return address

    def connect(self) -> None:
        """Wait for a root, join the mesh, take the configuration and verify it; raises Stopped after ``stop``."""
        with self._in_use:
            if self._stopping.is_set():
                raise Stopped
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
        with self._in_use:
            self._current().load_weights()

    def run(self) -> str:
        """Evaluate whatever the root asks for until the session ends; return why it ended."""
        with self._in_use:
            return self._current().run()

    def disconnect(self, failure: BaseException | None = None) -> None:
        """End the session, if there is one, and give its memory back.

        A root that waits for an ack is told of the ``failure`` instead.
        """
        self._session = None
        self._monitor.end_session()
        self._network.disconnect(failure)

    def drain(self) -> None:
        """End after the forward that runs, if one does, else now; called again, now. Safe from any thread."""
        session = self._session
        if self._stopping.is_set() or session is None or not session.drain():
            self.stop()
            return
        self._stopping.set()
        self._monitor.drain()
        self._report.info("draining", "ending after this forward; a second signal ends it at once")

    def stop(self) -> None:
        """Make whatever runs end now; safe from any thread."""
        self._stopping.set()
        self._monitor.drain()
        self._network.interrupt()
        session = self._session
        if session is not None:
            session.stop()

    def close(self) -> None:
        """Stop, wait until every thread has left this worker, and end everything; closed already, do nothing."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._in_use:
            self.disconnect()
            self._report.end_session()
            self._network.close()
            self._address = None
            if self._tracer is not None:
                self._tracer.close()
            if self._metrics is not None:
                self._metrics.close()

    def start(self) -> None:
        """Serve in a thread of its own until :meth:`stop`. Raises UsageError the second time, MachineError.

        What ends the thread before that is reported.
        """
        if self._thread is not None:
            raise UsageError("the worker was started already")
        self.listen()
        self._thread = threading.Thread(target=self._serve_in_thread, name="worker", daemon=True)
        self._thread.start()

    def serve_forever(self) -> None:
        """Serve one root after another until :meth:`stop`. Raises MachineError if it cannot listen."""
        with self._in_use:
            if self._stopping.is_set():
                return
            self.announce()
            while not self._stopping.is_set():
                self.serve_once()

    def serve_once(self) -> ExitCode:
        """Serve one session, report how it ended, and return the exit code for it. Raises MachineError."""
        with self._in_use:
            return ExitCode.DONE if self._stopping.is_set() else self._serve_next()

    def _serve_in_thread(self) -> None:
        try:
            self.serve_forever()
        except Exception as error:
            self._report.failure("cannot_start", error)

    def _serve_next(self) -> ExitCode:
        self.listen()
        failure: Exception | None = None
        reason = ""
        try:
            self.connect()
            self.load_weights()
            reason = self.run()
        except Stopped:
            return ExitCode.DONE
        except Exception as error:
            failure = error
        finally:
            # First of all, so that whoever reads how it ended finds the listener open.
            self.disconnect(failure)
        if failure is None:
            self._report.info("session_ended", f"session ended: {reason}", reason=reason)
            return ExitCode.DONE
        if self._stopping.is_set():
            return ExitCode.DONE
        code = exit_code(failure)
        self._tell_failure(failure, code)
        # The frames of its traceback hold what the session had: give that back now, not some day.
        failure = None
        gc.collect()
        return code

    def announce(self) -> None:
        """Listen, and say where, for whom, and with what this node computes. Raises MachineError."""
        host, port = self.listen()
        note = ""
        if self.options.tls is not None:
            note = " (TLS: for nodes with a certificate of this cluster)"
        elif ip_address(host).is_loopback:
            note = " (this machine only; --host 0.0.0.0 opens it to the network, without authentication)"
        self._report.info("listening", f"listening on {Endpoint(host, port)}{note}", host=host, port=port)
        if not note and not self.options.allow:
            self._report.warning(
                "open_to_all",
                f"everyone who can connect to {Endpoint(host, port)} can use this worker; there are no passwords: "
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
        tell_compute(self._table, self.options.n_threads, self._report)

    def _current(self) -> WorkerSession:
        if self._session is None:
            raise UsageError("there is no session: call connect first")
        return self._session

    def _tell_failure(self, error: Exception, code: ExitCode) -> None:
        kind = type(error).__name__
        self._monitor.add_error(kind)
        if code is ExitCode.BUG:
            text = f"session ended by a bug of this program, please report it: {kind}: {error}"
            self._report.error("session_failed", text, traceback=error, kind=kind)
        else:
            self._report.warning("session_failed", f"session ended: {error}", kind=kind, reason=str(error))


def run_worker(options: WorkerOptions, report: Report, *, once: bool) -> int:
    """Run the command: serve, end between two forwards on SIGTERM and Ctrl-C, return the exit code."""
    try:
        worker = Worker(options=options, report=report)
    except Exception as error:
        return report.failure("cannot_start", error)

    with on_end_signal(worker.drain):
        try:
            if once:
                worker.announce()
                return worker.serve_once()
            worker.serve_forever()
        except Exception as error:
            return report.failure("cannot_start", error)
        finally:
            worker.close()
            report.info("stopped", "stopped")
    return ExitCode.DONE
