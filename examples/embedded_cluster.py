"""Workers and root in one process: a whole cluster for the tests of a program that uses one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dllama_worker import Root, Worker


@contextmanager
def cluster(n_workers: int) -> Iterator[Root]:
    """Yield a root with so many workers, on ports that the system chooses; nothing is left after it."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(port=0)) for _ in range(n_workers)]
        for worker in workers:
            worker.start()
        yield stack.enter_context(Root(workers=[worker.address for worker in workers]))


if __name__ == "__main__":
    for n_workers in (1, 3):
        with cluster(n_workers) as root:
            text = root.generate("ROMEO:", max_tokens=24, temperature=0).finish()
            print(f"{n_workers + 1} nodes: {text!r}")
