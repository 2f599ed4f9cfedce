"""Everything a root can be told, in frozen records: its cluster, a text to generate, a command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.errors import UsageError
from dllama_worker.model.open_options import OpenOptions, WeightChoice
from dllama_worker.node.machine import default_threads
from dllama_worker.node.tls import TlsFiles
from dllama_worker.sharding.split import EVEN, Split

__all__ = ["CHAT_TEMPLATES", "ClusterOptions", "GenerationOptions", "RootOptions"]

#: The built-in forms of a conversation, by the names that the C++ program gives them (and chatml).
CHAT_TEMPLATES = ("llama2", "llama3", "deepSeek3", "chatml")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Which model, on which cluster.

    ``model`` None means the demo model, ``tokenizer`` None the model's own. ``weight_float_type`` and
    ``logits_float_type`` say what a model that is no .m file is loaded as; ``buffer_float_type`` None follows the
    weights. With ``cpp_tokens`` a .t file gives the C++ program's tokens. ``memory`` is how many bytes each node
    has, the root first, or one number for all; None leaves it open. ``stream_weights`` False sends none: the
    workers have their own copy of the model. A worker may be silent for ``sync_timeout`` seconds during a forward;
    the root waits for ``wait`` seconds for workers that are not there yet, and tries for ``reconnect`` seconds to
    connect again to one that is lost. ``trace`` is the file to write a timeline to, ``tls`` names the files for
    links with TLS. ``n_threads`` are those of the root and of each local worker; 0 becomes the physical cores that
    this process may use, shared out among them.
    """

    model: Path | None = None
    tokenizer: Path | None = None
    buffer_float_type: str | None = None
    max_seq_len: int = 0
    weight_float_type: WeightChoice = WeightChoice.AUTO
    logits_float_type: WeightChoice = WeightChoice.AUTO
    cpp_tokens: bool = False
    n_threads: int = 0
    workers: tuple[Endpoint, ...] = ()
    local_workers: int = 0
    split: Split = EVEN
    memory: tuple[int, ...] | None = None
    stream_weights: bool = True
    sync_timeout: float = timeouts.SYNC
    reconnect: float = timeouts.RECONNECT
    wait: float = timeouts.WAIT
    kernels: str = ""
    trace: Path | None = None
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        """Decide how many threads compute, where nobody has."""
        if not self.n_threads:
            object.__setattr__(self, "n_threads", default_threads(1 + self.local_workers))

    @property
    def open_options(self) -> OpenOptions:
        """How the model is opened."""
        return OpenOptions(self.max_seq_len, self.weight_float_type, self.logits_float_type)


@dataclass(frozen=True, slots=True)
class RootOptions(ClusterOptions):
    """What a command of ``dllama-root`` was told: which command, and what it does with the cluster.

    ``steps`` counts prompt and generated tokens together, 0 as many as the context holds. ``stride`` is that of
    perplexity, 0 half the context; ``system`` is the system prompt of a chat, None asks for it;
    ``template_variables`` are for the model's own template. With ``raw`` a terminal gets the control sequences of
    generated text as they are.
    """

    command: str
    prompt: str | None = None
    steps: int = 0
    temperature: float = 0.8
    topp: float = 0.9
    seed: int = 0
    chat_template: str | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict, hash=False)
    system: str | None = None
    stride: int = 0
    cpp_prompt_end: bool = False
    as_json: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How a prompt is continued, and where the text ends.

    At most ``max_tokens`` tokens, None as many as the context holds. The text ends before the first of the
    strings ``stop``, wherever in a token it begins, at one of ``stop_tokens``, and at an end token of the model
    unless ``ignore_eos``; the text of these tokens is left out. ``temperature`` 0 always takes the most likely
    token; else one of the most likely that have the probability ``topp`` together. The same ``seed`` gives the
    same text; None takes one by chance.

    Raises UsageError where a value cannot be.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    ignore_eos: bool = False
    temperature: float = 0.8
    topp: float = 0.9
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"max_tokens: expected 1 or more, or None, got {self.max_tokens}")
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature: expected 0 or more, got {self.temperature:g}")
        if not 0 <= self.topp <= 1:
            raise UsageError(f"topp: expected 0 to 1, got {self.topp:g}")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed: expected 0 or more, or None, got {self.seed}")
        if "" in self.stop:
            raise UsageError("stop: expected texts to end before, got an empty one")
