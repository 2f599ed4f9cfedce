"""A kernel of an installed plugin that raises: root and worker name plugin, op and layer, and go on."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pytest

import dllama_worker.root.cli
from dllama_ops import BoundOp, OpsPluginManager, RegisterKernel, hookimpl, make_plugin_manager
from dllama_ops.errors import KernelFailed
from dllama_proto.enums import OpCode, OpQuantType
from dllama_proto.exit_codes import ExitCode
from dllama_worker import Worker
from dllama_worker.errors import PeerLost
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.report import Report
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session
from dllama_worker.worker.options import WorkerOptions
from tests.helpers.reports import Collected
from tests.ops.plugins import Idle

_INFERENCE = ["inference", "--prompt", "x", "--steps", "4", "--nthreads", "1", "--kernels", "broken"]
_OP = r"SILU F32_F32_F32 'block_act' of layer 0"


def _fail(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("no luck")


class _Registering:
    """Offers one kernel, behind all others."""

    def __init__(self, factory: Callable[..., Any]) -> None:
        self._factory = factory

    @hookimpl
    def dllama_register_kernels(self, register: RegisterKernel) -> None:
        register(OpCode.SILU, OpQuantType.F32_F32_F32, self._factory, priority=-1000)


class _Compiling(_Registering):
    """Takes segments, which then fail."""

    @hookimpl
    def dllama_compile_segment(self, ops: Sequence[BoundOp], n_threads: int) -> object:
        return type("Compiled", (), {"forward": _fail})()


class _FailingCompiler(_Registering):
    """Raises when it is offered a segment."""

    dllama_compile_segment = hookimpl(lambda ops, n_threads: _fail())


class _FailingHook:
    """Raises when it is asked for kernels."""

    dllama_register_kernels = hookimpl(lambda register: _fail())


_STATES_WRONGLY = type("StatesWrongly", (Idle,), {"memory_need": _fail})
_FINISHES_WRONGLY = type("FinishesWrongly", (Idle,), {"finish_weight": _fail})
_COMPUTES_WRONGLY = type("ComputesWrongly", (Idle,), {"forward": _fail})
_EXITS = type("Exits", (Idle,), {"forward": lambda self, batch_size: exit(0)})

#: What is broken, and what it failed to do.
_BROKEN = {
    "stating its memory": (_Registering(_STATES_WRONGLY), f"state the memory of {_OP}"),
    "being made": (_Registering(_fail), f"make the kernel of {_OP}"),
    "finishing a weight": (_Registering(_FINISHES_WRONGLY), f"finish the weight of {_OP}"),
    "computing": (_Registering(_COMPUTES_WRONGLY), f"compute {_OP}"),
    "running a segment": (_Compiling(Idle), r"run the segment of \w+ \w+ '\w+' of layer \d+"),
}


def _install(monkeypatch: pytest.MonkeyPatch, plugin: object) -> None:
    def with_plugin() -> OpsPluginManager:
        manager = make_plugin_manager()
        manager.add("broken", lambda: plugin)
        return manager

    monkeypatch.setattr("dllama_worker.node.kernels.make_plugin_manager", with_plugin)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)


@pytest.mark.parametrize("what", _BROKEN)
def test_a_root_ends_with_4_and_names_all(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, stage = _BROKEN[what]
    _install(monkeypatch, plugin)
    assert dllama_worker.root.cli.main(_INFERENCE) == ExitCode.MACHINE
    said = capsys.readouterr().err
    [line] = [line for line in said.splitlines() if "error: " in line]
    assert "Traceback" not in said
    match = re.search(
        rf"plugin 'broken' failed to {stage}.*: RuntimeError: no luck \({__file__}, line \d+\); mend or ",
        line,
    )
    assert match, line


@pytest.mark.parametrize("what", _BROKEN)
def test_a_worker_names_all_tells_its_root_and_serves_on(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, stage = _BROKEN[what]
    _install(monkeypatch, plugin)
    report = Collected()
    options = WorkerOptions(port=0, n_threads=1, kernels="broken")
    codes: list[int] = []
    with Worker(options=options, report=report) as worker:
        thread = threading.Thread(target=lambda: codes.append(worker.serve_once()))
        thread.start()
        root = RootOptions("inference", n_threads=1, workers=(worker.address,))
        with pytest.raises(PeerLost) as caught, open_session(root, Report()) as session:
            session.inference.prefill([1, 2], ForwardTimes())
        thread.join(30)
    assert codes == [ExitCode.MACHINE]
    assert re.search(f"session ended: plugin 'broken' failed to {stage}", report.messages)
    # An ack came next. While weights come, the reason may be lost: the root writes on into a closed connection.
    if what in ("stating its memory", "being made"):
        assert "plugin 'broken' failed to " in caught.value.reason


@pytest.mark.parametrize("plugin", [_FailingHook(), _FailingCompiler(Idle)])
def test_a_hook_that_raises_is_a_warning(
    plugin: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch, plugin)
    assert dllama_worker.root.cli.main(_INFERENCE) == ExitCode.DONE
    assert "warning: plugin 'broken' failed to " in capsys.readouterr().err


def test_a_kernel_that_exits_ends_no_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch, _Registering(_EXITS))
    assert dllama_worker.root.cli.main(_INFERENCE) == KernelFailed.exit_code
    assert "failed to compute SILU" in capsys.readouterr().err
