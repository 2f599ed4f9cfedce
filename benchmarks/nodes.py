"""Starts the nodes of one cluster, watches what they print, and tells what the system counted for each."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Figures", "Model", "NodeFigures", "run_cluster"]

#: How long a node may take to listen, or to end.
_PATIENCE = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Model:
    """A model on disk and what is to be done with it: a prompt of so many tokens, so many more after it."""

    model: Path
    tokenizer: Path
    sync_type: str
    n_prompt_tokens: int
    n_predicted: int

    @property
    def prompt(self) -> str:
        """A text of ``n_prompt_tokens``, the one that begins every text included, if each character is one."""
        letters = "the quick brown fox jumps over a lazy dog "
        return (letters * (self.n_prompt_tokens // len(letters) + 1))[: self.n_prompt_tokens - 1].strip(" ")

    @property
    def n_steps(self) -> int:
        """Tokens in all."""
        return self.n_prompt_tokens + self.n_predicted

    @property
    def arguments(self) -> list[str]:
        """What both programs are told."""
        return [
            *("--model", str(self.model), "--tokenizer", str(self.tokenizer)),
            *("--buffer-float-type", self.sync_type, "--temperature", "0", "--seed", "1"),
            *("--steps", str(self.n_steps), "--prompt", self.prompt),
            *("--max-seq-len", str(-(-(self.n_steps + 1) // 256) * 256)),
        ]


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What the operating system counted for one node.

    ``run_cpu_seconds`` are those after the weights were loaded; ``needed_bytes`` is what a Python worker said
    that its weights, buffers and pipes take, None for other nodes.
    """

    kind: str
    cpu_seconds: float
    run_cpu_seconds: float
    peak_bytes: int
    needed_bytes: int | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a cluster did in one run: tokens per second as its root reports them, seconds, a figure a node."""

    prefill: float
    decode: float
    load_seconds: float
    nodes: tuple[NodeFigures, ...]


class _Node:
    """A process whose lines are read as they come: its output is a terminal, so that none is held back."""

    def __init__(self, kind: str, command: list[str], on_line: Callable[[str], None] | None = None) -> None:
        self.kind = kind
        self.lines: list[str] = []
        self._on_line = on_line
        self._came = threading.Condition()
        self._ended = False
        ours, theirs = pty.openpty()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()
        self.loaded_cpu_seconds = 0.0

    def _read(self, terminal: int) -> None:
        with open(terminal, errors="replace", newline="\n") as stream, contextlib.suppress(OSError):
            for line in stream:  # at its end a terminal reports an error
                text = line.rstrip()
                if self._on_line is not None:
                    self._on_line(text)
                with self._came:
                    self.lines.append(text)
                    self._came.notify_all()
        with self._came:
            self._ended = True
            self._came.notify_all()

    def wait_for_line(self, pattern: str) -> None:
        """Wait until a line matches. Raises RuntimeError where it does not come."""
        deadline = time.monotonic() + _PATIENCE
        with self._came:
            while not any(re.search(pattern, line, re.IGNORECASE) for line in self.lines):
                if self._ended or not self._came.wait(deadline - time.monotonic()):
                    raise RuntimeError(
                        f"{self.kind}: expected a line with {pattern!r}, got:\n"
                        + "\n".join(self.lines[-10:])
                    )

    def cpu_seconds_now(self) -> float:
        """Processor seconds so far."""
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS
        return 0.0

    def wait(self, timeout: float) -> int:
        """Wait for the end by itself. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while True:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.kind, timeout)
            time.sleep(0.02)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._usage = usage
        self._reader.join()
        return self._process.returncode

    def end(self) -> None:
        """End it, in whatever state it is."""
        if self._process.returncode is None:
            self._process.terminate()
            self.wait(_PATIENCE)

    def figures(self) -> NodeFigures:
        """What was counted, once it has ended."""
        total = self._usage.ru_utime + self._usage.ru_stime
        needed = None
        for line in self.lines:
            if '"event": "memory"' in line:
                needed = int(json.loads(line)["needed"])
        return NodeFigures(
            self.kind, total, total - self.loaded_cpu_seconds, self._usage.ru_maxrss * 1024, needed
        )


def run_cluster(nodes: str, model: Model, n_threads: int, cpp: Path | None, timeout: float) -> Figures:
    """Run one cluster once. ``nodes`` has a letter a node, the root first: P for ours, C for the C++ program.

    Raises RuntimeError where a node does not do what it should, with its last lines.
    """
    workers: list[_Node] = []
    root: _Node | None = None
    loaded_at: list[float] = []

    def on_line(line: str) -> None:
        if "weights loaded" in line.lower() and not loaded_at:
            loaded_at.append(time.monotonic())
            for node in (*workers, root):
                if node is not None:
                    node.loaded_cpu_seconds = node.cpu_seconds_now()

    try:
        ports = []
        for kind in nodes[1:]:
            ports.append(_free_port())
            workers.append(_Node(kind, _worker(kind, cpp, ports[-1], n_threads)))
        for worker in workers:
            worker.wait_for_line("listening")
        started = time.monotonic()
        root = _Node(nodes[0], _root(nodes[0], cpp, model, ports, n_threads), on_line)
        if root.wait(timeout) != 0:
            raise RuntimeError(f"the root of {nodes} failed:\n" + "\n".join(root.lines[-10:]))
    finally:
        for node in (root, *workers):
            if node is not None:
                node.end()
    prefill, decode = _speeds(nodes[0], root.lines)
    return Figures(prefill, decode, loaded_at[0] - started, tuple(n.figures() for n in (root, *workers)))


def _worker(kind: str, cpp: Path | None, port: int, n_threads: int) -> list[str]:
    common = ["--port", str(port), "--nthreads", str(n_threads)]
    if kind == "C":
        return [str(cpp), "worker", *common]
    return [sys.executable, "-m", "dllama_worker", *common, "--log-format", "json"]


def _root(kind: str, cpp: Path | None, model: Model, ports: list[int], n_threads: int) -> list[str]:
    command = [str(cpp)] if kind == "C" else [sys.executable, "-m", "dllama_worker.root"]
    command += ["inference", *model.arguments, "--nthreads", str(n_threads)]
    if ports:
        command += ["--workers", *(f"127.0.0.1:{port}" for port in ports)]
    return command if kind == "C" else [*command, "--json"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _speeds(kind: str, lines: list[str]) -> tuple[float, float]:
    """Tokens per second in the prompt and after it, as the root reports them."""
    if kind == "C":
        found = [float(m[1]) for line in lines if (m := re.search(r"tokens/s:\s+([\d.]+)", line))]
        return found[0], found[1]
    result: dict[str, Any] = next(json.loads(line) for line in lines if line.startswith('{"command"'))
    return result["evaluation"]["tokens_per_second"], result["prediction"]["tokens_per_second"]
