"""Measurements as a table, as JSON, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dllama_ops.bench.measure import Measurement
from dllama_proto.exit_codes import CommandError
from dllama_proto.json_text import json_text
from dllama_proto.printable import printable

__all__ = ["as_json", "as_text", "check_plot", "save_roofline"]

_HEADINGS = ("op", "key", "rows", "kernel", "ms", "G/s", "GB/s", "of memory")


def as_text(measurements: Sequence[Measurement], bandwidth: float) -> str:
    """Return plain columns; ``G/s`` are 10^9 multiplications a second."""
    rows = [_HEADINGS, *(_row(each, bandwidth) for each in measurements)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 4 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", f"memory: {bandwidth:.1f} GB/s read by one thread"])


def _row(each: Measurement, bandwidth: float) -> tuple[str, ...]:
    return (
        each.workload.name,
        str(each.workload.key),
        str(each.workload.batch_size),
        printable(each.kernel),
        f"{each.seconds * 1e3:.3f}",
        f"{each.giga_products:.1f}",
        f"{each.gigabytes:.1f}",
        f"{each.gigabytes / bandwidth:.0%}",
    )


def as_json(measurements: Sequence[Measurement], bandwidth: float, **facts: Any) -> str:
    """Return everything as a JSON text; times in seconds."""
    results = [
        {
            "op": each.workload.name,
            "key": str(each.workload.key),
            "rows": each.workload.batch_size,
            "kernel": each.kernel,
            "seconds": each.seconds,
            "best_seconds": each.best_seconds,
            "giga_products_per_second": each.giga_products,
            "gigabytes_per_second": each.gigabytes,
            "share_of_memory_bandwidth": each.gigabytes / bandwidth,
        }
        for each in measurements
    ]
    return json_text({**facts, "memory_gigabytes_per_second": bandwidth, "results": results}, indent=2)


def check_plot(path: Path) -> None:
    """Make sure, before anything is measured, that a picture can be drawn. Raises CommandError."""
    if find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib, which is not installed: pip install matplotlib")
    if not path.parent.is_dir():
        raise CommandError(f"--plot: {path.parent}: there is no such folder")


def save_roofline(path: Path, measurements: Sequence[Measurement], bandwidth: float) -> None:
    """Draw products per second over products per byte, with what memory allows and each op's name and rows.

    Needs matplotlib.
    """
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6))
    for kernel in sorted({each.kernel for each in measurements}):
        chosen = [each for each in measurements if each.kernel == kernel]
        axes.scatter(
            [each.workload.products / each.workload.total_bytes for each in chosen],
            [each.giga_products for each in chosen],
            label=kernel,
        )
        for each in chosen:  # a name beside each point; several kernels share most places
            place = each.workload.products / each.workload.total_bytes, each.giga_products
            text = f" {each.workload.name}, {each.workload.batch_size}"
            axes.annotate(text, place, fontsize=6, rotation=20)
    intensities = [each.workload.products / each.workload.total_bytes for each in measurements]
    ends = [min(intensities), max(intensities)]
    axes.plot(ends, [bandwidth * end for end in ends], "k--", label=f"memory, {bandwidth:.1f} GB/s")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="multiplications per byte",
        ylabel="10⁹ multiplications per second",
    )
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
