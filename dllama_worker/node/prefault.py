"""Memory for weights made ready while they are still on their way.

A system hands out pages, zeroed, when they are first touched. That takes 0.1 to 0.5 seconds a gigabyte, and on a
virtual machine whose host has yet to find the memory 2.5: time in which nothing would be received. The C++ root
loads its own part first, so workers have some to spare.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable

from dllama_ops.kernel import Kernel

__all__ = ["prefault_weights"]


def prefault_weights(kernels: Iterable[Kernel]) -> threading.Thread:
    """Call ``touch_weight`` of every kernel that has it, on a thread of its own; return the thread.

    Kernels that are given up meanwhile are passed over: the thread keeps none alive but the one it is at. A
    program that ends waits for that one. As a daemon the thread would return from native code into an interpreter
    that is gone, which aborts the process.
    """
    waiting = [weakref.ref(kernel) for kernel in kernels if hasattr(kernel, "touch_weight")]
    thread = threading.Thread(target=_touch, args=(waiting,), name="prefault")
    thread.start()
    return thread


def _touch(waiting: list[weakref.ref[Kernel]]) -> None:
    for reference in waiting:
        if not threading.main_thread().is_alive():
            return
        touch: Callable[[], None] | None = getattr(reference(), "touch_weight", None)
        if touch is not None:
            touch()
