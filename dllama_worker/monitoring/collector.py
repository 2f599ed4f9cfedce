"""A monitor's numbers as Prometheus metrics: every name, label and help text; read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from dllama_worker.monitoring.messages import MessageCounts
from dllama_worker.monitoring.monitor import Monitor, Snapshot, WorkerPhase

__all__ = ["make_registry"]

_Labels = TypeVar("_Labels", tuple[str], tuple[str, str])

#: Kinds of errors that are there from the start, at zero, so that the first one is seen as an increase.
_ERROR_KINDS = (
    "ConfigRejected",
    "InternalError",
    "KernelDataError",
    "MachineError",
    "PeerLost",
    "RemoteProtocolError",
    "WeightMismatch",
)


def make_registry(monitor: Monitor, messages: MessageCounts) -> CollectorRegistry:
    """Return what a scrape reads: the monitor, the log messages, and this process (memory, CPU, descriptors)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_WorkerCollector(monitor, messages))
    return registry


class _WorkerCollector(Collector):
    def __init__(self, monitor: Monitor, messages: MessageCounts) -> None:
        self._monitor = monitor
        self._messages = messages

    def describe(self) -> Iterable[Metric]:
        """Have nothing checked for duplicates: no other collector has names like these."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family, from one snapshot."""
        now = self._monitor.snapshot()
        yield InfoMetricFamily("dllama_worker", "The program.", {"version": _version()})
        yield from _phase(now)
        yield CounterMetricFamily(
            "dllama_worker_sessions",
            "Sessions that began: a root was there and the mesh complete.",
            now.sessions,
        )
        yield _counter(
            "dllama_worker_session_errors",
            "Sessions, and callers that never became one, that ended by an error, by its type.",
            ("kind",),
            {(kind,): now.errors.get(kind, 0) for kind in sorted({*_ERROR_KINDS, *now.errors})},
        )
        yield _counter(
            "dllama_worker_log_messages",
            "Log messages by level and event, as far as they are logged.",
            ("level", "event"),
            self._messages.counts(),
        )
        yield from _work(now)
        yield from _links(now)
        yield from _memory(now)


def _version() -> str:
    try:
        return version("dllama-worker")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[_Labels, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _phase(now: Snapshot) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "dllama_worker_phase", "1 for what the worker is doing, 0 for the rest.", labels=("phase",)
    )
    for phase in WorkerPhase:
        family.add_metric((phase.value,), now.phase is phase)
    yield family


def _work(now: Snapshot) -> Iterator[Metric]:
    yield _counter(
        "dllama_worker_tokens", "Rows evaluated.", ("stage",), {(k,): v for k, v in now.tokens.items()}
    )
    yield _counter(
        "dllama_worker_forwards",
        "Forwards: prefill has several rows each, decode one.",
        ("stage",),
        {(k,): v for k, v in now.forwards.items()},
    )
    yield _counter(
        "dllama_worker_op_seconds",
        "Time in ops. The sum over op codes is measured, its division estimated from one forward in some.",
        ("op", "stage"),
        now.op_seconds,
    )
    yield _counter(
        "dllama_worker_sync_seconds",
        "Time in syncs, waiting for other nodes included; divided as the op seconds are.",
        ("sync", "stage"),
        now.sync_seconds,
    )
    yield GaugeMetricFamily(
        "dllama_worker_last_forward_timestamp_seconds",
        "When the last forward ended, as Unix time; 0 before the first.",
        now.last_forward,
    )


def _links(now: Snapshot) -> Iterator[Metric]:
    for name, text, values in (
        ("dllama_worker_link_sent_bytes", "Bytes sent, by the node they went to.", now.sent_bytes),
        (
            "dllama_worker_link_received_bytes",
            "Bytes received, by the node they came from.",
            now.received_bytes,
        ),
    ):
        yield _counter(name, text, ("node",), {(str(node),): n for node, n in sorted(values.items())})


def _memory(now: Snapshot) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "dllama_worker_memory_bytes",
        "What the session's configuration takes, by use; bookkeeping is a bound.",
        labels=("use",),
    )
    for use in ("weights", "buffers", "pipes", "bookkeeping"):
        family.add_metric((use,), 0 if now.memory is None else getattr(now.memory, use))
    yield family
