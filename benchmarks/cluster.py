"""Clusters side by side: tokens per second, load time, processor time and memory of every node.

    python benchmarks/cluster.py --shape llama-3.2-1b --clusters PP CC --cpp ../distributed-llama/dllama

A cluster is a word of one letter a node, the root first: P is this project, C the C++ program. All clusters run in
turn, round after round (A B A B), since other work on the machine changes what it can do by the minute; ratios are
taken within a round, against the last cluster named.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from nodes import Figures, Model, NodeFigures, run_cluster
from rich.console import Console
from rich.table import Table

from dllama_proto.model_shapes import MODEL_SHAPES

_MEGABYTE = 1e6


def main() -> int:
    """Run what was asked for; write a table, and JSON where wanted."""
    options = _parse()
    model = _model(options)
    rounds: list[dict[str, Figures]] = []
    console = Console(stderr=True)
    for number in range(options.rounds):
        figures = {}
        for nodes in options.clusters:
            _touch_memory(3 * model.model.stat().st_size)
            console.print(f"round {number + 1} of {options.rounds}: {nodes}", style="dim")
            figures[nodes] = run_cluster(nodes, model, options.nthreads, options.cpp, options.timeout)
        rounds.append(figures)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(rounds, options))
    if options.json:
        options.json.write_text(json.dumps(_record(rounds, options), indent=1) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", nargs="+", default=["PP"], metavar="WORD", help="default: PP")
    parser.add_argument("--cpp", type=Path, metavar="PATH", help="the C++ program, dllama, for every C")
    parser.add_argument(
        "--shape", choices=sorted(MODEL_SHAPES), default="llama-100m", help="of a synthetic model"
    )
    parser.add_argument("--weights", choices=("q40", "f32"), default="q40")
    parser.add_argument("--models", type=Path, default=Path("build/models"), help="where they lie")
    parser.add_argument("--nthreads", type=int, default=1, help="of every node (default: 1)")
    parser.add_argument("--prompt-tokens", type=int, default=78, metavar="N")
    parser.add_argument("--predict", type=int, default=64, metavar="N", help="tokens after the prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="of one run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything as JSON")
    options = parser.parse_args()
    for nodes in options.clusters:
        if not nodes or set(nodes) - set("PC"):
            parser.error(f"--clusters: expected words of P and C, got {nodes!r}")
        if "C" in nodes and options.cpp is None:
            parser.error(f"--clusters {nodes} needs --cpp, the path to the C++ program")
    if options.cpp is not None and not os.access(options.cpp, os.X_OK):
        parser.error(f"--cpp: {options.cpp} is not a program")
    return options


def _model(options: argparse.Namespace) -> Model:
    """Return the synthetic model of the shape, written where it does not exist yet."""
    options.models.mkdir(parents=True, exist_ok=True)
    stem = options.models / f"{options.shape}-{options.weights}"
    model, tokenizer = stem.with_suffix(".m"), stem.with_suffix(".t")
    if not tokenizer.exists():
        command = [sys.executable, "-m", "dllama_worker.model.synthetic", options.shape, options.weights]
        subprocess.run([*command, str(model), str(tokenizer)], check=True)
    sync_type = "q80" if options.weights == "q40" else "f32"
    return Model(model, tokenizer, sync_type, options.prompt_tokens, options.predict)


def _touch_memory(n_bytes: int) -> None:
    """Use so much memory and give it back: what a virtual machine never used may be slow the first time.

    Without this, loading a gigabyte took one cluster 0.2 seconds and the next 2.5, by the order of runs. In a
    process of its own, since nodes would count the most that this one ever used as theirs.
    """
    toucher = multiprocessing.get_context("spawn").Process(target=_touch, args=(n_bytes,))
    toucher.start()
    toucher.join()


def _touch(n_bytes: int) -> None:
    with mmap.mmap(-1, n_bytes) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        for offset in range(0, n_bytes, mmap.PAGESIZE):
            memory[offset] = 1


def _spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    low, middle, high = (form.format(v) for v in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})"


_NODE_ROWS: dict[str, Callable[[Sequence[NodeFigures]], str]] = {
    "CPU s": lambda node: _spread([each.cpu_seconds for each in node]),
    "CPU s, run": lambda node: _spread([each.run_cpu_seconds for each in node]),
    "peak MB": lambda node: f"{max(each.peak_bytes for each in node) / _MEGABYTE:.0f}",
    "needed MB": lambda node: f"{node[0].needed_bytes / _MEGABYTE:.0f}" if node[0].needed_bytes else "",
}


def _table(rounds: Sequence[dict[str, Figures]], options: argparse.Namespace) -> Table:
    title = (
        f"{options.shape} {options.weights}, {options.nthreads} thread(s) a node, {options.prompt_tokens} + "
        f"{options.predict} tokens, {len(rounds)} rounds: median (minimum-maximum)"
    )
    table = Table("", *options.clusters, title=title)
    last = options.clusters[-1]

    speeds: dict[str, Callable[[Figures], float]] = {
        "prefill, tokens/s": lambda figures: figures.prefill,
        "decode, tokens/s": lambda figures: figures.decode,
        "load, seconds": lambda figures: figures.load_seconds,
    }
    for name, value in speeds.items():
        values = {nodes: [value(r[nodes]) for r in rounds] for nodes in options.clusters}
        table.add_row(name, *(_spread(values[nodes], "{:.2f}") for nodes in options.clusters))
        if len(options.clusters) > 1:
            ratios = ([a / b for a, b in zip(v, values[last], strict=True)] for v in values.values())
            table.add_row(f"  against {last}", *(_spread(each, "{:.2f}") for each in ratios))
    for i in range(max(map(len, options.clusters))):
        for what, cell in _NODE_ROWS.items():
            nodes_i = {
                nodes: [r[nodes].nodes[i] for r in rounds] for nodes in options.clusters if i < len(nodes)
            }
            cells = [cell(nodes_i[nodes]) if nodes in nodes_i else "" for nodes in options.clusters]
            table.add_row(f"{f'node {i}' if i else 'root'}: {what}", *cells)
    return table


def _record(rounds: Sequence[dict[str, Figures]], options: argparse.Namespace) -> dict[str, object]:
    return {
        "shape": options.shape,
        "weights": options.weights,
        "n_threads": options.nthreads,
        "prompt_tokens": options.prompt_tokens,
        "predicted_tokens": options.predict,
        "machine": {"processor": _processor(), "n_cores": os.cpu_count(), "system": platform.platform()},
        "rounds": [{nodes: asdict(figures) for nodes, figures in r.items()} for r in rounds],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
