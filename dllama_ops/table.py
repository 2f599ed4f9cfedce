"""Which kernel computes what: every plugin is asked once, then the choice stands.

For each key the highest priority wins; two plugins with the same one are a clash that a person has to
decide. A preference (``--kernels``, :mod:`dllama_ops.preference`) decides first, where a plugin that it names
has a kernel; with ``only`` the others are shut out, but for the NumPy reference, the last resort. A plugin that
raises, or that offers something that is no kernel, contributes nothing and is on record in
:attr:`KernelTable.failures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dllama_ops.errors import (
    KernelChoiceError,
    KernelClash,
    KernelNotFound,
    PluginFailure,
    listed,
)
from dllama_ops.hookspecs import RegisterKernel
from dllama_ops.kernel import KernelFactory, KernelKey
from dllama_ops.plugins import OpsPluginManager
from dllama_ops.preference import Preference, Preferences, parse_preferences
from dllama_ops.segments import CompileHook, SegmentCompiler
from dllama_proto.enums import OpCode, OpQuantType

__all__ = [
    "KernelChoice",
    "KernelEntry",
    "KernelTable",
    "LAST_RESORT",
    "build_kernel_table",
]

#: The plugin that may always step in: the NumPy reference.
LAST_RESORT = "numpy"


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """A kernel that a plugin offers."""

    key: KernelKey
    plugin: str
    variant: str
    priority: int
    factory: KernelFactory

    @property
    def source(self) -> str:
        """The plugin, with the variant where it has one: what ``--kernels`` takes."""
        return f"{self.plugin}:{self.variant}" if self.variant else self.plugin

    @property
    def kernel(self) -> str:
        """Name of the kernel's class or function."""
        return getattr(self.factory, "__name__", None) or type(self.factory).__name__


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The kernel for a key, and why it is this one."""

    entry: KernelEntry
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class KernelTable:
    """The kernels of a process, resolved once.

    ``choices`` has the kernel for each key; ``entries`` all that were offered, chosen or not; ``plugins``
    those that were asked; ``failures`` what went wrong with any; ``compilers`` those that may take whole
    segments, the preferred one first (see :mod:`dllama_ops.segments`).
    """

    choices: Mapping[KernelKey, KernelChoice]
    entries: tuple[KernelEntry, ...]
    plugins: tuple[str, ...]
    preferences: Preferences
    compilers: tuple[SegmentCompiler, ...]
    failures: tuple[PluginFailure, ...]

    def get(self, key: KernelKey) -> KernelEntry:
        """Return the kernel for a key. Raises KernelNotFound, saying where was looked."""
        try:
            return self.choices[key].entry
        except KeyError:
            raise KernelNotFound(self._missing(key)) from None

    def _missing(self, key: KernelKey) -> str:
        text = f"expected a kernel for {key}, found none in the plugins {listed(self.plugins)}"
        if self.preferences.only:
            text += f" with --kernels {self.preferences}"
            others = sorted({entry.source for entry in self.entries if entry.key == key})
            if others:
                text += f"; without it there is {listed(others)}"
        if self.failures:
            text += "; broken: " + "; ".join(map(str, self.failures))
        return text


def build_kernel_table(manager: OpsPluginManager, prefer: str = "") -> KernelTable:
    """Ask every plugin for its kernels and choose one for each key.

    ``prefer`` is what :func:`~dllama_ops.preference.parse_preferences` reads. Raises KernelClash where two
    plugins offer the same key with the same highest priority, KernelChoiceError where ``prefer`` names what does
    not exist.
    """
    preferences = parse_preferences(prefer)
    entries: list[KernelEntry] = []
    failures = list(manager.failures)
    for plugin, call in manager.implementers("dllama_register_kernels"):
        offers = _Offers(plugin)
        try:
            call(register=offers.register)
            offers.close()
        except (Exception, SystemExit) as error:
            failures.append(PluginFailure.of(plugin, "register its kernels", error))
        else:
            entries += offers.entries
    compile_hooks = manager.implementers("dllama_compile_segment")
    plugins = tuple(sorted(name for name, _ in manager.list_name_plugin()))
    _check_preferences(preferences.wanted, plugins, entries, failures)
    choices = {
        key: _choose([entry for entry in entries if entry.key == key], preferences)
        for key in sorted({entry.key for entry in entries})
    }
    return KernelTable(
        choices=MappingProxyType({key: choice for key, choice in choices.items() if choice is not None}),
        entries=tuple(entries),
        plugins=plugins,
        preferences=preferences,
        compilers=_order_compilers(compile_hooks, preferences, entries),
        failures=tuple(failures),
    )


class _Offers:
    """What one plugin registers, checked as it comes in."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._error: Exception | None = None
        self._closed = False
        self.entries: list[KernelEntry] = []
        self.register: RegisterKernel = self._register

    def _register(
        self,
        code: OpCode,
        quant: OpQuantType,
        factory: KernelFactory,
        *,
        priority: int = 0,
        variant: str = "",
    ) -> None:
        try:
            self._check_offer(code, quant, factory, priority, variant)
        except (TypeError, ValueError) as error:
            self._error = error  # a plugin that swallows the error is broken all the same
            raise
        self.entries.append(KernelEntry(KernelKey(code, quant), self._plugin, variant, priority, factory))

    def _check_offer(self, code: Any, quant: Any, factory: Any, priority: Any, variant: Any) -> None:
        if self._closed:
            raise ValueError("expected kernels to be registered within the hook, got one after it returned")
        if not isinstance(code, OpCode) or not isinstance(quant, OpQuantType):
            raise TypeError(f"expected an OpCode and an OpQuantType, got {code!r} and {quant!r}")
        key = KernelKey(code, quant)
        if not callable(factory):
            raise TypeError(f"expected a callable that makes the kernel of {key}, got {factory!r}")
        if not isinstance(priority, int):
            raise TypeError(f"expected a whole number as the priority of {key}, got {priority!r}")
        if not isinstance(variant, str) or set(variant) & set(":, "):
            raise TypeError(
                f"expected a name without commas, colons and spaces as a variant of {key}, got {variant!r}"
            )
        if any(entry.key == key and entry.variant == variant for entry in self.entries):
            raise ValueError(f"{key} is registered twice with the variant {variant!r}")

    def close(self) -> None:
        """End the plugin's turn; raise what it swallowed."""
        self._closed = True
        if self._error is not None:
            raise self._error


def _check_preferences(
    preferences: Iterable[Preference],
    plugins: Iterable[str],
    entries: Iterable[KernelEntry],
    failures: Iterable[PluginFailure],
) -> None:
    sources = {entry.source for entry in entries}
    known = {Preference(plugin) for plugin in plugins} | {
        Preference(entry.plugin, entry.variant) for entry in entries if entry.variant
    }
    for wanted in preferences:
        if wanted in known:
            continue
        text = f"expected kernels of one of {listed(sorted(sources | set(plugins)))}, got {str(wanted)!r}"
        broken = [str(failure) for failure in failures if failure.plugin == wanted.plugin]
        raise KernelChoiceError("; ".join([text, *broken]))


def _choose(offers: list[KernelEntry], preferences: Preferences) -> KernelChoice | None:
    """Choose among the offers for one key; None where the preference excludes them all."""
    for wanted in preferences.wanted:
        admitted = [entry for entry in offers if wanted.admits(entry.plugin, entry.variant)]
        if admitted:
            return KernelChoice(_highest(admitted, preferences), f"asked for with {wanted}")
    if preferences.only:
        last = [entry for entry in offers if entry.plugin == LAST_RESORT]
        reason = "last resort: nothing asked for has it"
        return KernelChoice(_highest(last, preferences), reason) if last else None
    best = _highest(offers, preferences)
    beaten = [entry for entry in offers if entry is not best]
    if not beaten:
        return KernelChoice(best, "the only one")
    others = ", ".join(f"{entry.source} {entry.priority}" for entry in beaten)
    return KernelChoice(best, f"highest priority: {best.priority} before {others}")


def _highest(offers: list[KernelEntry], preferences: Preferences) -> KernelEntry:
    """Return the offer of highest priority; among one plugin's equals, the first that it registered."""
    best = max(offers, key=lambda entry: entry.priority)
    for entry in offers:
        if entry.priority == best.priority and entry.plugin != best.plugin:
            one, other = (
                replace(preferences, wanted=(*preferences.wanted, Preference(plugin)))
                for plugin in (best.plugin, entry.plugin)
            )
            raise KernelClash(
                f"plugins {best.plugin!r} and {entry.plugin!r} both offer a kernel for {best.key} with "
                f"priority {best.priority}: say which comes first with --kernels {one} or --kernels {other} "
                "(other kernels stay as they are), or uninstall one"
            )
    return best


def _order_compilers(
    hooks: Iterable[tuple[str, CompileHook]],
    preferences: Preferences,
    entries: Iterable[KernelEntry],
) -> tuple[SegmentCompiler, ...]:
    """Order the plugins that compile segments as their kernels are: by preference, then by priority."""
    order = [preference.plugin for preference in preferences.wanted]
    priority: dict[str, int] = {}
    for entry in entries:
        priority[entry.plugin] = max(entry.priority, priority.get(entry.plugin, entry.priority))

    def rank(compiler: SegmentCompiler) -> tuple[int, int, str]:
        asked = order.index(compiler.plugin) if compiler.plugin in order else len(order)
        return asked, -priority.get(compiler.plugin, 0), compiler.plugin

    compilers = [SegmentCompiler(plugin, hook) for plugin, hook in hooks]
    return tuple(sorted((c for c in compilers if not preferences.only or c.plugin in order), key=rank))
