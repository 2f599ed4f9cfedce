"""Workers in threads of this process, each serving one session after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dllama_proto.endpoint import Endpoint
from dllama_worker import Worker

__all__ = ["serving"]


@contextmanager
def serving(n_workers: int, model: Path | None = None) -> Iterator[list[Endpoint]]:
    """Run workers, with a model file of their own or without; yield where they listen."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(port=0, model_path=model)) for _ in range(n_workers)]
        for worker in workers:
            worker.start()
        yield [worker.address for worker in workers]
