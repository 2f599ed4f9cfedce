"""What the machine gives this process: cores, and limits set from outside (Linux control groups, version 2)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = [
    "cgroup_cores",
    "cgroup_free_memory",
    "default_threads",
    "instruction_sets",
    "physical_cores",
    "usable_cores",
]

_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")

#: What kernels for language models can use, by the names in /proc/cpuinfo (x86, then ARM).
_INSTRUCTION_SETS = (
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_cores(cpus: Iterable[int] | None = None, root: Path = _CPUS) -> int:
    """Return how many physical cores this process may run on, or those that have one of ``cpus``.

    Threads of one core (SMT) share its arithmetic and its way to memory, so a second one brings kernels nothing.
    Where the system does not say which these are, each counts as a core.
    """
    if cpus is None:
        if not hasattr(os, "sched_getaffinity"):
            return usable_cores()
        cpus = os.sched_getaffinity(0)
    return len(
        {_read(root / f"cpu{cpu}/topology/thread_siblings_list").strip() or str(cpu) for cpu in cpus}
    )


def default_threads(n_nodes: int = 1) -> int:
    """Return how many threads each of ``n_nodes`` nodes computes with that have this machine to themselves.

    That is its part of the physical cores that this process may use, and of the time that control groups allow;
    1 at least. ``OMP_NUM_THREADS``, which other libraries that compute go by, limits it as well.
    """
    cores, allowed = physical_cores(), cgroup_cores()
    if allowed is not None:
        cores = min(cores, int(allowed))
    threads = max(1, cores // max(1, n_nodes))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(limit)) if limit.isdecimal() and int(limit) else threads


def cgroup_cores(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return how many cores' worth of time the control groups allow, or None where they set no limit."""
    limits = []
    for group in _groups(root, own):
        words = _read(group / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def cgroup_free_memory(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the bytes left under the control groups' limits (a container's), or None where there is none.

    File pages that the kernel can drop at once count as free.
    """
    free = []
    for group in _groups(root, own):
        limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            free.append(max(0, int(limit) - int(used) + int(stat.get("inactive_file", 0))))
    return min(free, default=None)


def instruction_sets() -> tuple[str, ...]:
    """Return those that matter here, as Linux names them; none where the system doesn't say."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            found = set(value.split())
            return tuple(each for each in _INSTRUCTION_SETS if each in found)
    return ()


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """Yield this process's group and all above it: each may set a limit."""
    for line in _read(own).splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":  # version 2; in a container the path is that within it
            group = root / path.strip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(root))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
