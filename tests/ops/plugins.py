"""Plugins to test with: real objects for pluggy, and installed packages that announce one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dllama_ops import (
    BaseKernel,
    BoundOp,
    CompiledSegment,
    KernelKey,
    OpsPluginManager,
    RegisterKernel,
    hookimpl,
)
from dllama_proto.enums import OpCode, OpQuantType

F32 = OpQuantType.F32_F32_F32
MUL = KernelKey(OpCode.MUL, F32)
SILU = KernelKey(OpCode.SILU, F32)


class Idle(BaseKernel):
    """A kernel that does nothing."""

    def forward(self, batch_size: int) -> None:
        pass


class Plugin:
    """Offers kernels: (key, priority, variant) each."""

    def __init__(self, *offers: tuple[KernelKey, int, str]) -> None:
        self._offers = offers

    @hookimpl
    def dllama_register_kernels(self, register: RegisterKernel) -> None:
        for key, priority, variant in self._offers:
            register(key.code, key.quant, Idle, priority=priority, variant=variant)


class Fails:
    """Offers a kernel, then raises."""

    @hookimpl
    def dllama_register_kernels(self, register: RegisterKernel) -> None:
        register(OpCode.MUL, F32, Idle)
        raise RuntimeError("no such processor")


class Offers:
    """Calls ``register`` with whatever it was given."""

    def __init__(self, *arguments: Any, swallow: bool = False, **options: Any) -> None:
        self._arguments, self._options, self._swallow = arguments, options, swallow

    @hookimpl
    def dllama_register_kernels(self, register: Any) -> None:
        try:
            register(*self._arguments, **self._options)
        except Exception:
            if not self._swallow:
                raise


class Compiler(Plugin):
    """Compiles segments by a function of its own; may offer kernels too."""

    def __init__(self, compile_ops: Callable[[Sequence[BoundOp]], Any], *offers: Any) -> None:
        super().__init__(*offers)
        self._compile = compile_ops

    @hookimpl
    def dllama_compile_segment(self, ops: Sequence[BoundOp], n_threads: int) -> CompiledSegment | None:
        result: CompiledSegment | None = self._compile(ops)
        return result


def manager(**plugins: Any) -> OpsPluginManager:
    """Return a manager of just these plugins, by name."""
    made = OpsPluginManager()
    for name, plugin in plugins.items():
        made.add(name, lambda plugin=plugin: plugin)  # type: ignore[misc]
    return made


def reference() -> Plugin:
    """Return a stand-in for the NumPy reference, to be registered as ``numpy``."""
    return Plugin((MUL, -100, ""), (SILU, -100, ""))


def install(site: Path, name: str, module: str, source: str) -> None:
    """Install a package into a folder of sys.path that announces ``module`` as the plugin ``name``."""
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dllama_ops]\n{name} = {module}\n")
