"""One session of a worker: read, next event, dispatch, phase by phase; no byte is looked at here."""

from __future__ import annotations

import time
from functools import partial

from dllama_ops.scope import ForwardStopped
from dllama_ops.table import KernelTable
from dllama_proto.events import Ack, AckKind, Closed, WeightsEnd
from dllama_proto.formatting import counted, format_bytes
from dllama_proto.messages import ControlPacket, Greeting, WeightHeader
from dllama_proto.sync_plan import plan_link
from dllama_worker import timeouts
from dllama_worker.errors import InternalError, PeerLost, WeightMismatch
from dllama_worker.model.source import ModelSource
from dllama_worker.monitoring.monitor import Monitor
from dllama_worker.node.memory import memory_limit, memory_need
from dllama_worker.node.node import Node
from dllama_worker.node.profile import ForwardProfile
from dllama_worker.node.tracing import Tracer
from dllama_worker.report import Report
from dllama_worker.worker.config_reader import ConfigReader
from dllama_worker.worker.describe import describe_model, is_probe
from dllama_worker.worker.local_weights import LocalWeights
from dllama_worker.worker.network import NetworkClient
from dllama_worker.worker.options import WorkerOptions
from dllama_worker.worker.packing import PART_BYTES, Packing
from dllama_worker.worker.preparation_watch import PreparationWatch, preparation_seconds
from dllama_worker.worker.throughput import Throughput

__all__ = ["WorkerSession"]

#: A root that is silent for so many seconds has finished a request: log what it took.
_REQUEST_GAP = 1.0

#: Bytes a second. A root that sends weights more slowly only keeps the worker busy; the slowest Wi-Fi is faster.
_MIN_WEIGHT_RATE = 16_384


class WorkerSession:
    """What a worker does for one root, after the handshake; the network outlives it."""

    def __init__(
        self,
        network: NetworkClient,
        greeting: Greeting,
        options: WorkerOptions,
        table: KernelTable,
        report: Report,
        monitor: Monitor,
        model: ModelSource | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if network.root is None:
            raise InternalError("a session needs a root: connect the network first")
        self._network = network
        self._channel = network.root
        self._greeting = greeting
        self._options = options
        self._n_threads = options.n_threads
        self._table = table
        self._report = report
        self._monitor = monitor
        self._model = model
        self._tracer = tracer
        self._node: Node | None = None
        self._is_evaluating = self._is_draining = False
        self._forward_started: float | None = None

    def configure(self) -> None:
        """Take the configuration, refuse it or bind it.

        Raises ConfigRejected, MachineError, PeerLost, RemoteProtocolError.
        """
        reader = ConfigReader(self._channel)
        self._await_root()
        net = reader.read_net()
        self._await_root()
        config = reader.read_node()
        self._report.table("model", "model", describe_model(net, config))
        need, limit = memory_need(net, config), memory_limit(self._options.max_memory)
        self._report.info(
            "memory",
            f"memory needed {format_bytes(need.total)} (weights {format_bytes(need.weights)}, buffers "
            f"{format_bytes(need.buffers)}, pipes {format_bytes(need.pipes)}), may take "
            + ("any amount" if limit is None else format_bytes(limit)),
            needed=need.total,
            weights=need.weights,
            buffers=need.buffers,
            pipes=need.pipes,
            limit=limit,
        )
        watch = self._network.watch
        seconds = preparation_seconds(net, config, self._options.handshake_timeout)
        check = PreparationWatch(watch, seconds)
        links = self._network.links
        self._node = Node(net, config, links, self._table, self._n_threads, limit=limit, check=check)
        self._network.on_root_left = self._stop_when_abandoned
        # Its own preparations are no fault of the root's.
        self._channel.link.set_deadline(self._options.handshake_timeout)
        reader.accept()
        self._monitor.load(self._node.need)

    def load_weights(self) -> None:
        """Take the weights from the root, checked against the local model, or from that alone.

        Raises WeightMismatch, UsageError (the local model does not fit), PeerLost, RemoteProtocolError.
        """
        node = self._configured()
        local = None
        if self._model is not None:
            local = LocalWeights(self._model, node.net, node.config)
        with (
            self._report.progress("weights", "weights", node.weights.total) as advance,
            Packing(self._n_threads) as packing,
        ):
            started = time.monotonic()
            while True:
                self._await_root()
                event = self._channel.wait_event()
                if isinstance(event, WeightsEnd):
                    break
                if not isinstance(event, WeightHeader):
                    raise PeerLost(
                        self._channel.link.name, "closed the connection before all weights had come"
                    )
                self._receive_piece(node, event, local, packing)
                advance(event.n_bytes)
                self._check_pace(node.weights.n_bytes, time.monotonic() - started)
            packing.finish()
            if node.weights.is_untouched and local is not None:
                for name, index, offset, data in local.portions():
                    node.weights.load(name, index, offset, data)
                    advance(len(data))
        if node.weights.is_untouched and local is None:
            raise WeightMismatch("the root sent no weights: start this worker with --model PATH")
        node.ready(self._report, self._tracer, PreparationWatch(self._network.watch))
        self._network.check_silent()
        self._channel.link.set_deadline(self._options.handshake_timeout)
        self._channel.send(Ack(AckKind.WEIGHTS))
        # From here on a root may be silent for days; only in the middle of a forward it may not.
        for link in self._network.links.values():
            link.set_deadline(None)
            link.set_stall_timeout(self._options.sync_timeout)
        self._monitor.serve()
        self._report.info(
            "weights_loaded",
            f"weights loaded: {format_bytes(node.weights.n_bytes)}",
            bytes=node.weights.n_bytes,
        )

    def run(self) -> str:
        """Evaluate until the root stops; return why it ended. Raises PeerLost, KernelDataError."""
        node = self._configured()
        executor = node.executor
        if executor is None:
            raise InternalError("run needs weights: call load_weights first")
        is_measured = is_probe(node.net)
        throughput = Throughput(self._network.links.values(), is_measured=is_measured)
        has_begun = False
        try:
            while not self._is_draining:
                self._wait_for_request(throughput)
                event = self._channel.wait_event()
                if isinstance(event, Closed):
                    return "the root closed the connection"
                if not isinstance(event, ControlPacket):
                    raise InternalError(
                        f"expected a control packet from the protocol, got {type(event).__name__}"
                    )
                if event.is_stop:
                    return "the root stopped"
                if not has_begun:
                    self._network.identify_peers(partial(_sends, node), self._options.sync_timeout)
                    has_begun = True
                self._is_evaluating = True
                throughput.start()
                profile = self._evaluate(node, event, is_measured=is_measured)
                self._channel.slices_exchanged()
                throughput.add(event.batch_size, executor.op_seconds, executor.sync_seconds)
                if not is_measured:
                    self._monitor.add_forward(
                        event.batch_size, executor.op_seconds, executor.sync_seconds, profile
                    )
                self._is_evaluating = False
            return "asked to stop"
        finally:
            throughput.report(self._report)

    def _evaluate(self, node: Node, event: ControlPacket, *, is_measured: bool) -> ForwardProfile | None:
        """Run one forward; return where its time went, if it is time to know."""
        self._forward_started = time.monotonic()
        try:
            if not is_measured and self._monitor.wants_profile(event.batch_size):
                return node.profile(event.position, event.batch_size)
            node.forward(event.position, event.batch_size)
        except ForwardStopped:
            self._network.watch.look()
            raise PeerLost(
                self._channel.link.name, "closed the connection during a forward", hung_up=True
            ) from None
        finally:
            self._forward_started = None
        return None

    def stop(self) -> None:
        """End the forward that runs between two ops. Safe from any thread."""
        if self._node is not None:
            self._node.stop()

    def _stop_when_abandoned(self) -> None:
        """Called, in a thread of its own, while the root has left: a long forward is of no use to anybody."""
        started = self._forward_started
        if started is not None and time.monotonic() - started > timeouts.ABANDONED:
            self.stop()

    def drain(self) -> bool:
        """Have :meth:`run` end after the forward that runs; tell whether one does. Safe from any thread."""
        self._is_draining = True
        return self._is_evaluating

    def _receive_piece(
        self, node: Node, piece: WeightHeader, local: LocalWeights | None, packing: Packing
    ) -> None:
        """Receive a piece where it belongs; with a local model, beside it, to compare."""
        view = None
        if local is None:
            view = node.weights.view(piece.name, piece.op_index, piece.offset, piece.n_bytes)
        if view is not None:
            node.weights.arrived(piece.name, piece.op_index, piece.offset, piece.n_bytes)
        for start in range(0, piece.n_bytes, PART_BYTES):
            n_bytes = min(PART_BYTES, piece.n_bytes - start)
            self._channel.link.set_deadline(self._options.handshake_timeout)
            if view is not None:
                self._channel.receive_payload_into(view[start : start + n_bytes])
                continue
            part = packing.memory(n_bytes)
            self._channel.receive_payload_into(part)
            packing.hand_over(partial(_load, node, piece, start, local), part)

    def _await_root(self) -> None:
        """Wait for the root's next message, which has a time limit, and notice who hangs up meanwhile."""
        seconds, link = self._options.handshake_timeout, self._channel.link
        link.set_deadline(seconds)
        if not self._network.watch.readable(link, seconds):
            raise PeerLost(link.name, f"said nothing for {seconds:g} s (--handshake-timeout)")

    def _check_pace(self, n_bytes: int, seconds: float) -> None:
        """A root may pause, but not send single bytes slowly without end."""
        if seconds > self._options.handshake_timeout + n_bytes / _MIN_WEIGHT_RATE:
            raise PeerLost(
                self._channel.link.name,
                f"weights come too slowly: expected {_MIN_WEIGHT_RATE} bytes a second, got "
                f"{counted(n_bytes, 'byte')} in {seconds:.0f} s",
            )

    def _wait_for_request(self, throughput: Throughput) -> None:
        """Wait as long as it takes; log what the last request took once the root is silent."""
        while not self._network.watch.readable(self._channel.link, _REQUEST_GAP):
            throughput.report(self._report)

    def _configured(self) -> Node:
        if self._node is None:
            raise InternalError("the session has no configuration: call configure first")
        return self._node


def _sends(node: Node, peer: int) -> bool:
    """Tell whether a peer sends this node something in every forward."""
    return bool(plan_link(node.net, node.config, peer).receives)


def _load(
    node: Node, piece: WeightHeader, start: int, local: LocalWeights | None, data: memoryview
) -> None:
    """Put a part of a piece in its place, after comparing it with the local model's, if there is one."""
    offset = piece.offset + start
    if local is not None:
        local.check(piece.name, piece.op_index, offset, data)
    node.weights.load(piece.name, piece.op_index, offset, data)
