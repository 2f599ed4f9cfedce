"""Which kernels somebody asks for (``--kernels``): plugins that are preferred, or the only ones to compute.

fast-silu                 its kernels where it has one; for other keys the usual order
native:avx2,fast-silu     of native only the variant avx2; fast-silu where that has no kernel
only:fast-silu            nobody else's kernels; the NumPy reference where there is none
"""

from __future__ import annotations

from dataclasses import dataclass

from dllama_ops.errors import KernelChoiceError

__all__ = ["ONLY", "Preference", "Preferences", "parse_preferences"]

#: The word before the colon that shuts out every plugin that is not named; no plugin may have this name.
ONLY = "only"

_FORM = f"[{ONLY}:]PLUGIN[:VARIANT],…"


@dataclass(frozen=True, slots=True)
class Preference:
    """A plugin that somebody asked for; with ``variant``, only its kernels of that variant."""

    plugin: str
    variant: str | None = None

    def __str__(self) -> str:
        return self.plugin if self.variant is None else f"{self.plugin}:{self.variant}"

    def admits(self, plugin: str, variant: str) -> bool:
        """Tell whether this asks for a plugin's kernels of a variant."""
        return plugin == self.plugin and self.variant in (None, variant)


@dataclass(frozen=True, slots=True)
class Preferences:
    """The plugins that come first, in this order. With ``only`` no others compute, but for the reference."""

    wanted: tuple[Preference, ...] = ()
    only: bool = False

    def __str__(self) -> str:
        return (f"{ONLY}:" if self.only else "") + ",".join(map(str, self.wanted))

    def __bool__(self) -> bool:
        return bool(self.wanted)


def parse_preferences(text: str) -> Preferences:
    """Read ``[only:]PLUGIN[:VARIANT],…``; an empty text prefers nothing. Raises KernelChoiceError."""
    if not text.strip():
        return Preferences()
    word, colon, rest = text.partition(":")
    only = bool(colon) and word.strip() == ONLY
    wanted = []
    for part in (rest if only else text).split(","):
        plugin, colon, variant = part.strip().partition(":")
        if not plugin or (colon and not variant):
            raise KernelChoiceError(f"expected {_FORM} as the kernels to prefer, got {text!r}")
        if plugin == ONLY and colon:
            raise KernelChoiceError(f"expected {ONLY}: once, before the first plugin, got {text!r}")
        wanted.append(Preference(plugin, variant or None))
    return Preferences(tuple(wanted), only)
