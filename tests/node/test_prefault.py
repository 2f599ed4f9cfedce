"""Kernels that can have their memory made ready are asked to; others, and those given up, are passed over."""

import subprocess
import sys
import threading
from typing import cast

from dllama_ops.kernel import Kernel
from dllama_worker.node.prefault import prefault_weights


class _Touchable:
    def __init__(self) -> None:
        self.touched_by: list[str] = []

    def touch_weight(self) -> None:
        self.touched_by.append(threading.current_thread().name)


class _Plain:
    pass


def test_each_is_touched_once_on_another_thread() -> None:
    kernels = [_Touchable(), _Plain(), _Touchable()]
    prefault_weights(cast(list[Kernel], kernels)).join(10)
    assert [k.touched_by for k in kernels if isinstance(k, _Touchable)] == [["prefault"], ["prefault"]]


def test_a_kernel_that_is_given_up_meanwhile_is_passed_over() -> None:
    may_go_on = threading.Event()

    class Slow(_Touchable):
        def touch_weight(self) -> None:
            may_go_on.wait(10)
            super().touch_weight()

    first, second = Slow(), _Touchable()
    touched = second.touched_by
    thread = prefault_weights(cast(list[Kernel], [first, second]))
    del second
    may_go_on.set()
    thread.join(10)
    assert first.touched_by == ["prefault"]
    assert touched == []


def test_a_program_that_ends_waits_for_the_weight_that_is_touched_and_no_other() -> None:
    program = """
import subprocess
import sys
import threading
from dllama_worker.node.prefault import prefault_weights

begun = threading.Event()

class Touchable:
    def touch_weight(self):
        begun.set()
        threading.main_thread().join()
        print("touched", flush=True)

kernels = [Touchable(), Touchable()]
prefault_weights(kernels)
begun.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("touched\n", "")
