"""Which plugins there are: the built-in ones, then those that installed packages announce.

Every plugin is loaded by itself, so that a broken one costs only itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from types import MappingProxyType
from typing import Any

import pluggy

from dllama_ops import hookspecs
from dllama_ops.errors import PluginFailure, listed
from dllama_ops.preference import ONLY

__all__ = ["OpsPluginManager", "make_plugin_manager"]

#: Plugins that come with this package, by name; known even where its entry points are not installed.
_BUILT_IN = MappingProxyType({"numpy": "dllama_ops.reference", "native": "dllama_ops.native"})


class OpsPluginManager(pluggy.PluginManager):
    """pluggy's manager with our hooks, which keeps a record of the plugins it could not take."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT_NAME)
        self.add_hookspecs(hookspecs)
        self._failures: list[PluginFailure] = []

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        """What went wrong while plugins were loaded and registered."""
        return tuple(self._failures)

    def add(self, name: str, load: Callable[[], Any]) -> None:
        """Load and register one plugin; whatever it raises becomes a failure on record."""
        if name == ONLY or set(name) & set(":, "):
            self._blame(
                name, "register", f"expected a name without commas, colons and spaces, and not {ONLY!r}"
            )
            return
        if self.has_plugin(name):
            self._blame(name, "register", f"another plugin has the name, {self.get_plugin(name)!r}")
            return
        try:
            plugin = load()
        except (Exception, SystemExit) as error:
            self._failures.append(PluginFailure.of(name, "load", error))
            return
        try:
            self.register(plugin, name)
        except Exception as error:
            self._failures.append(PluginFailure.of(name, "register", error))
            return
        callers = self.get_hookcallers(plugin) or []
        unknown = sorted(caller.name for caller in callers if not caller.has_spec())
        if unknown or not callers:
            self.unregister(name=name)
            self._blame(
                name,
                "register",
                f"there is no hook {listed(unknown)}"
                if unknown
                else f"{plugin!r} implements no hook; mark its functions with dllama_ops.hookimpl",
            )

    def implementers(self, hook: str) -> list[tuple[str, Callable[..., list[Any]]]]:
        """Return the plugins that implement a hook, in order of name, each with what calls it alone."""
        plugins = {impl.plugin_name: impl.plugin for impl in getattr(self.hook, hook).get_hookimpls()}
        return [
            (
                name,
                self.subset_hook_caller(hook, [other for other in plugins.values() if other is not plugin]),
            )
            for name, plugin in sorted(plugins.items())
        ]

    def _blame(self, name: str, stage: str, reason: str) -> None:
        self._failures.append(PluginFailure(name, stage, reason))


def make_plugin_manager() -> OpsPluginManager:
    """Return a new manager with the built-in plugins and those of the entry-point group ``dllama_ops``.

    What cannot be loaded is in its ``failures``.
    """
    manager = OpsPluginManager()
    for name, module in _BUILT_IN.items():
        manager.add(name, partial(import_module, module))
    for entry_point in sorted(metadata.entry_points(group=hookspecs.PROJECT_NAME)):
        if _BUILT_IN.get(entry_point.name) != entry_point.value:
            manager.add(entry_point.name, entry_point.load)
    return manager
