"""Workers in threads of this process, each serving one session after another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dllama_proto.endpoint import Endpoint
from dllama_worker import Worker

__all__ = ["serving"]


@contextmanager
def serving(n_workers: int, model: Path | None = None) -> Iterator[list[Endpoint]]:
    """Run workers, with a model file of their own or without; yield where they listen."""
    workers = [Worker(port=0, model_path=model) for _ in range(n_workers)]
    threads = [threading.Thread(target=worker.serve_forever) for worker in workers]
    try:
        addresses = [Endpoint(*worker.listen()) for worker in workers]
        for thread in threads:
            thread.start()
        yield addresses
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(10)
        for worker in workers:
            worker.close()
