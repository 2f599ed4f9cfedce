"""What is to be checked: the kernels and the segment compilers of the plugins that somebody named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dllama_ops.errors import KernelChoiceError, PluginFailure, listed
from dllama_ops.kernel import BoundOp, CompiledSegment, KernelFactory, KernelKey
from dllama_ops.plugins import OpsPluginManager
from dllama_ops.preference import ONLY, Preference, parse_preferences
from dllama_ops.table import LAST_RESORT, KernelEntry, build_kernel_table
from dllama_ops.testing import CompileSegment
from dllama_proto.enums import OpCode

__all__ = ["Compiler", "Selection", "select"]


@dataclass(frozen=True, slots=True, eq=False)
class Compiler:
    """A plugin's segment compiler, with the kernels that it is tried with: the plugin's, of one variant."""

    source: str
    compile_ops: CompileSegment
    kernels: Mapping[KernelKey, KernelFactory]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Everything to check; ``broken`` has the plugins that offer nothing because they raised."""

    entries: tuple[KernelEntry, ...]
    compilers: tuple[Compiler, ...]
    broken: tuple[PluginFailure, ...]

    def __bool__(self) -> bool:
        return bool(self.entries or self.compilers or self.broken)


def select(manager: OpsPluginManager, wanted: str = "", ops: Collection[OpCode] = ()) -> Selection:
    """Choose by ``PLUGIN[:VARIANT]``, or every plugin, and by op codes, or all of them.

    With op codes no segments are chosen. Raises KernelChoiceError where there is no such plugin or variant,
    or where what was named offers nothing on this machine.
    """
    # With one plugin only nothing clashes: every offer is checked, whichever would be chosen.
    table = build_kernel_table(manager, prefer=f"{ONLY}:{LAST_RESORT}")
    preference = _parse(wanted)
    broken = tuple(
        failure for failure in table.failures if preference is None or failure.plugin == preference.plugin
    )
    entries = [
        entry
        for entry in table.entries
        if preference is None or preference.admits(entry.plugin, entry.variant)
    ]
    compilers = [
        compiler
        for name, hook in manager.implementers("dllama_compile_segment")
        if preference is None or name == preference.plugin
        for compiler in _compilers(name, hook, entries)
    ]
    if preference is not None and not broken:
        sources = {entry.source for entry in table.entries} | set(table.plugins)
        if str(preference) not in sources:
            raise KernelChoiceError(f"expected one of {listed(sorted(sources))}, got {wanted!r}")
        if not entries and not compilers:
            raise KernelChoiceError(f"plugin {wanted!r} offers nothing on this machine")
    if ops:
        entries = [entry for entry in entries if entry.key.code in ops]
        compilers = []
        if not entries and not broken:
            names = listed(sorted(code.name for code in ops))
            raise KernelChoiceError(
                f"expected a plugin with a kernel for {names}, got {wanted or 'none'!r}"
            )
    return Selection(tuple(entries), tuple(compilers), broken)


def _parse(wanted: str) -> Preference | None:
    preferences = parse_preferences(wanted)
    if len(preferences.wanted) > 1 or preferences.only:
        raise KernelChoiceError(f"expected one PLUGIN[:VARIANT], got {wanted!r}")
    return preferences.wanted[0] if preferences else None


def _compilers(plugin: str, hook: Any, entries: Sequence[KernelEntry]) -> list[Compiler]:
    """Return a plugin's compiler once for each of its variants; once if it has no kernels."""

    def compile_ops(ops: Sequence[BoundOp], n_threads: int) -> CompiledSegment | None:
        results: list[CompiledSegment] = hook(ops=ops, n_threads=n_threads)
        return results[0] if results else None

    kernels: dict[str, dict[KernelKey, KernelFactory]] = {}
    for entry in entries:
        if entry.plugin == plugin:
            kernels.setdefault(entry.source, {})[entry.key] = entry.factory
    return [
        Compiler(source, compile_ops, MappingProxyType(factories))
        for source, factories in (kernels or {plugin: {}}).items()
    ]
