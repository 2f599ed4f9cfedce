"""Parts are handed over in order, each once, on another thread where there is one; what fails is told."""

import threading
from collections.abc import Callable

import pytest

from dllama_worker.worker.packing import PART_BYTES, Packing


def _send(packing: Packing, n_parts: int, seen: list[tuple[bytes, int]]) -> None:
    def load(part: memoryview) -> None:
        seen.append((bytes(part), threading.get_ident()))

    for i in range(n_parts):
        part = packing.memory(4)
        part[:] = i.to_bytes(4, "little")
        packing.hand_over(load, part)
    packing.finish()


def _hand_over(packing: Packing, load: Callable[[memoryview], None], n_parts: int) -> None:
    for _ in range(n_parts):
        packing.hand_over(load, packing.memory(PART_BYTES))


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_parts_come_in_order(n_threads: int) -> None:
    seen: list[tuple[bytes, int]] = []
    with Packing(n_threads) as packing:
        _send(packing, 100, seen)
    assert [part for part, _ in seen] == [i.to_bytes(4, "little") for i in range(100)]
    threads = {thread for _, thread in seen}
    assert len(threads) == 1
    assert (threading.get_ident() in threads) == (n_threads == 1)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_failure_reaches_the_receiver(n_threads: int) -> None:
    def refuse(part: memoryview) -> None:
        raise ValueError("no")

    with Packing(n_threads) as packing, pytest.raises(ValueError, match="no"):
        _hand_over(packing, refuse, 10)


def test_memory_waits_until_a_part_is_free() -> None:
    may_load = threading.Event()
    loaded: list[int] = []

    def load(part: memoryview) -> None:
        may_load.wait(10)
        loaded.append(len(loaded))

    with Packing(2) as packing:
        threading.Timer(0.05, may_load.set).start()
        for _ in range(8):  # more than there are parts
            packing.hand_over(load, packing.memory(1))
        packing.finish()
    assert loaded == list(range(8))


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    with Packing(2) as packing:
        _hand_over(packing, lambda part: None, 2)
    assert threading.active_count() == before
