"""Checks of the machine: Python, kernels, cores, memory, the model file if there is to be one."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from dllama_ops import native
from dllama_ops.bench import memory_bandwidth
from dllama_ops.kernel import KernelKey
from dllama_ops.table import KernelTable
from dllama_proto.enums import OpCode, OpQuantType
from dllama_proto.formatting import format_bytes
from dllama_worker.doctor.finding import Finding, Grade
from dllama_worker.errors import UsageError
from dllama_worker.model.opening import open_model
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.node.machine import (
    cgroup_cores,
    default_threads,
    instruction_sets,
    physical_cores,
    usable_cores,
)
from dllama_worker.node.memory import available_memory
from dllama_worker.report import Report
from dllama_worker.worker.options import WorkerOptions

__all__ = ["check_machine"]

#: The op in which a node spends most of its time, with the types that clusters use.
_MATMUL = KernelKey(OpCode.MATMUL, OpQuantType.Q80_Q40_F32)
#: Bytes: below this a node holds no slice of a model that anybody runs.
_LITTLE_MEMORY = 1_000_000_000
#: Measuring takes this many bytes of memory, so it is left out where they are not there.
_BANDWIDTH_BYTES = 512 << 20
#: GB/s that one thread of a Raspberry Pi 4 reads; less is a sign that something is wrong.
_LITTLE_BANDWIDTH = 3.0


def check_machine(options: WorkerOptions) -> Iterator[Finding]:
    """Yield what there is to say of this machine, for a worker with these options."""
    yield _python()
    yield _kernels(options.kernels)
    yield _instructions()
    yield _cores(options.n_threads)
    yield _memory()
    yield _bandwidth()
    if options.model is not None:
        yield _model(options.model)


def _python() -> Finding:
    name = f"{platform.python_implementation()} {platform.python_version()}"
    where = f"{platform.system()} {platform.machine()}"
    return Finding("Python", f"{name} on {where}", facts={"python": name, "system": where})


def _kernels(prefer: str) -> Finding:
    try:
        table = choose_kernels(prefer, Report())
    except UsageError as error:
        advice = "see dllama-ops list"
        return Finding("kernels", str(error), Grade.FAILURE, advice, exit_code=error.exit_code)
    source = table.get(_MATMUL).source if _MATMUL in table.choices else "none"
    facts = {
        "matmul": source,
        "plugins": table.plugins,
        "broken": [failure.plugin for failure in table.failures],
    }
    text = f"{source} for matmuls, of {', '.join(table.plugins)}"
    grade, advice = _kernel_advice(table, source)
    return Finding("kernels", text, grade, advice, facts)


def _kernel_advice(table: KernelTable, source: str) -> tuple[Grade, str]:
    if table.failures:
        return Grade.WARNING, f"mend or uninstall {table.failures[0].plugin}: {table.failures[0].reason}"
    if native.unavailable is not None:
        return Grade.WARNING, f"native kernels are many times faster: {native.unavailable}"
    if source == "numpy":
        return Grade.WARNING, "native kernels are many times faster; leave --kernels out"
    return Grade.OK, ""


def _instructions() -> Finding:
    found = instruction_sets()
    if not found:
        return Finding("instruction sets", "the system does not say")
    return Finding("instruction sets", " ".join(found), facts={"instruction_sets": found})


def _cores(n_threads: int) -> Finding:
    cores, logical, allowed = physical_cores(), usable_cores(), cgroup_cores()
    text = f"{cores} usable, "
    if logical > cores:
        text += f"{logical} with those that share a core, "
    text += f"--nthreads {n_threads}"
    if allowed is not None:
        text += f", time for {allowed:g} (control group)"
    facts = {"cores": cores, "logical": logical, "allowed": allowed, "n_threads": n_threads}
    max_threads = default_threads()
    if n_threads > max_threads:
        advice = f"threads that share a core wait for each other: --nthreads {max_threads}"
        return Finding("cores", text, Grade.WARNING, advice, facts)
    advice = f"--nthreads {max_threads} would use all of them" if n_threads < max_threads else ""
    return Finding("cores", text, Grade.OK, advice, facts)


def _memory() -> Finding:
    free = available_memory()
    if free is None:
        return Finding("memory", "the system does not say")
    facts = {"available": free}
    if free < _LITTLE_MEMORY:
        return Finding("memory", f"{format_bytes(free)} free", Grade.WARNING, "end other programs", facts)
    return Finding("memory", f"{format_bytes(free)} free", facts=facts)


def _bandwidth() -> Finding:
    free = available_memory()
    if free is not None and free < _BANDWIDTH_BYTES:
        return Finding("memory bandwidth", "not measured: too little memory is free", Grade.WARNING)
    gigabytes = memory_bandwidth()
    text = f"{gigabytes:.1f} GB/s with one thread"
    facts = {"gigabytes_per_second": round(gigabytes, 2)}
    if gigabytes < _LITTLE_BANDWIDTH:
        advice = "slower than a Raspberry Pi 4: is something else running, or the machine throttled?"
        return Finding("memory bandwidth", text, Grade.WARNING, advice, facts)
    advice = f"each GB of weights: {gigabytes:.0f} tokens/s at most for one thread"
    return Finding("memory bandwidth", text, Grade.OK, advice, facts)


def _model(path: Path) -> Finding:
    try:
        open_model(path)
    except UsageError as error:
        return Finding("model", str(error), Grade.FAILURE, exit_code=error.exit_code)
    size = path.stat().st_size
    return Finding("model", f"{path}: {format_bytes(size)}", facts={"model": str(path), "bytes": size})
