"""How sizes, times and counts are written for people, the same by every program of the project."""

from __future__ import annotations

__all__ = ["counted", "format_bytes", "format_duration"]


def format_bytes(n: float) -> str:
    """Return a number of bytes with a decimal unit that suits it, as network tools do: ``1.5 GB``."""
    # The rounded number chooses the unit: 999,960 bytes are 1.0 MB, not 1000.0 kB.
    if abs(round(n)) < 1000:
        return f"{round(n)} B"
    for unit in ("kB", "MB", "GB"):
        n /= 1000
        if abs(round(n, 1)) < 1000:
            return f"{n:.1f} {unit}"
    return f"{n / 1000:.1f} TB"


def format_duration(ns: float) -> str:
    """Return a time span, given in nanoseconds, with a unit that suits it: ``1.50 ms``."""
    if round(ns / 1e3) < 1000:
        return f"{ns / 1e3:.0f} µs"
    return f"{ns / 1e6:.2f} ms" if round(ns / 1e6, 2) < 1000 else f"{ns / 1e9:.2f} s"


def counted(n: int, noun: str) -> str:
    """Return ``1 node`` or ``2 nodes``, for a noun whose plural takes an s."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
