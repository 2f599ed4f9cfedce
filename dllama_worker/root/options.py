"""Everything a root can be told, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.sharding.split import EVEN, Split

__all__ = ["CHAT_TEMPLATES", "RootOptions"]

#: The built-in forms of a conversation, by the names that the C++ program gives them (and chatml).
CHAT_TEMPLATES = ("llama2", "llama3", "deepSeek3", "chatml")


@dataclass(frozen=True, slots=True)
class RootOptions:
    """What to run, on which cluster.

    ``model`` and ``tokenizer`` None mean the demo model. ``steps`` counts prompt and generated tokens
    together, 0 as many as the context holds. ``buffer_float_type`` None follows the model's weights.
    ``memory`` is how many bytes each node has, the root first, or one number for all; None leaves it open.
    ``stream_weights`` False sends none: the workers have their own copy of the model. A worker may be silent for
    ``sync_timeout`` seconds during a forward; the root tries for
    ``reconnect`` seconds to connect again to one that is lost.
    ``trace`` is the file to write a timeline to.
    """

    command: str
    model: Path | None = None
    tokenizer: Path | None = None
    prompt: str | None = None
    steps: int = 0
    temperature: float = 0.8
    topp: float = 0.9
    seed: int = 0
    buffer_float_type: str | None = None
    max_seq_len: int = 0
    n_threads: int = 1
    workers: tuple[Endpoint, ...] = ()
    local_workers: int = 0
    split: Split = EVEN
    memory: tuple[int, ...] | None = None
    stream_weights: bool = True
    sync_timeout: float = timeouts.SYNC
    reconnect: float = timeouts.RECONNECT
    kernels: str = ""
    chat_template: str | None = None
    cpp_prompt_end: bool = False
    as_json: bool = False
    trace: Path | None = None
