"""What may have happened to a worker that went without a word, by how far it had come; and where to look."""

from __future__ import annotations

from dllama_proto.connection import Phase
from dllama_proto.formatting import format_bytes
from dllama_worker.node.memory import MemoryNeed

__all__ = ["hint"]

_GREETED = (
    "it does not answer the greeting: it may be serving another root, be no worker, or have an --allow without "
    "this machine; a C++ worker also stays like this after somebody connected and said nothing (a port scan, a "
    "health check): restart it"
)
_JOINING = (
    "it was to connect to the other workers: each must reach the others at the addresses given to this root; its "
    "log says more"
)
_CONFIGURED = "its part of the model needs {need}: it may lack that memory, or a kernel; its log says which"
_LOADING = (
    "its part of the model needs {need}: it may have run out of memory; its log, or that of its system, says "
    "more"
)
_HINTS = {
    Phase.GREETING: _GREETED,
    Phase.GREETING_ACK: _GREETED,
    Phase.ROOT_READY: _JOINING,
    Phase.NET_CONFIG_AHEAD: _JOINING,
    Phase.NET_CONFIG: _JOINING,
    Phase.NET_CONFIG_ACK: _JOINING,
    Phase.NODE_CONFIG_AHEAD: _CONFIGURED,
    Phase.NODE_CONFIG: _CONFIGURED,
    Phase.NODE_CONFIG_ACK: _CONFIGURED,
    Phase.WEIGHTS: _LOADING,
    Phase.WEIGHT_DATA: _LOADING,
    Phase.WEIGHTS_ACK: _LOADING,
}


def hint(phase: Phase, need: MemoryNeed | None) -> str:
    """Return what may have been the cause for a worker to go in a phase; empty where nothing can be said.

    ``need`` is what its configuration asks for.
    """
    text = _HINTS.get(phase, "")
    if need is None:
        return "" if "{need}" in text else text
    return text.format(need=f"{format_bytes(need.total)} (weights {format_bytes(need.weights)})")
