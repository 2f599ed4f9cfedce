"""Every check of the kit on every kernel of a selection, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product

from dllama_ops.check.selection import Compiler, Selection
from dllama_ops.errors import PluginFailure
from dllama_ops.kernel import KernelFactory, KernelKey
from dllama_ops.table import KernelEntry
from dllama_ops.testing import (
    SEGMENT_KINDS,
    OpCase,
    SegmentKind,
    bad_data_cases,
    check_in_segment,
    check_kernel,
    check_memory_need,
    check_refusal,
    check_segment,
    golden_cases,
    random_case,
    random_segment,
    reference_kernels,
)
from dllama_proto.enums import OpCode

__all__ = ["CaseFailure", "CheckReport", "KernelResult", "SegmentResult", "Tally", "run_suite"]

#: Seeds for which all bad indexes are tried: seven cases each.
_BAD_SEEDS = 4
#: Random cases on which memory is measured, too.
_MEMORY_SEEDS = 4
#: One random segment of each kind for so many random cases of a kernel.
_CASES_A_SEGMENT = 5
#: Ops that go to the reference in every other segment: kernels of another plugin among the compiler's own.
_FOREIGN = frozenset({OpCode.ROPE, OpCode.SILU})


@dataclass(slots=True)
class Tally:
    """How many cases ran, and how many of them had no failure."""

    cases: int = 0
    passed: int = 0

    def add(self, passed: bool) -> None:
        """Count a case."""
        self.cases += 1
        self.passed += passed


@dataclass(frozen=True, slots=True)
class CaseFailure:
    """What is wrong, in the words of the kit, and with which case."""

    case: str
    failure: str


@dataclass(frozen=True, slots=True)
class KernelResult:
    """What came of one kernel: recordings, random cases, segments that it is part of, bad indexes."""

    entry: KernelEntry
    golden: Tally = field(default_factory=Tally)
    random: Tally = field(default_factory=Tally)
    chained: Tally = field(default_factory=Tally)
    refusals: Tally = field(default_factory=Tally)
    failures: list[CaseFailure] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """What came of a segment compiler on segments of one kind; those left to kernels count as ``declined``."""

    source: str
    kind: SegmentKind
    quantised: bool
    compiled: Tally = field(default_factory=Tally)
    declined: list[str] = field(default_factory=list)
    failures: list[CaseFailure] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; to leave a segment alone is no failure."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All results; ``broken`` are plugins that raised while they were loaded or registered."""

    n_cases: int
    seed: int
    kernels: tuple[KernelResult, ...]
    segments: tuple[SegmentResult, ...]
    broken: tuple[PluginFailure, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing at all is wrong."""
        results: list[KernelResult | SegmentResult] = [*self.kernels, *self.segments]
        return not self.broken and all(result.passed for result in results)


def run_suite(
    selection: Selection, n_cases: int, seed: int, progress: Callable[[str], None] = lambda what: None
) -> CheckReport:
    """Check everything selected, on ``n_cases`` random cases a kernel with seeds from ``seed`` on.

    ``progress`` is told what comes next. Never raises what a kernel raises: that is a failure.
    """
    make_cases = _CaseMaker(n_cases, seed)
    kernels = []
    for entry in selection.entries:
        progress(f"{entry.source} {entry.key}")
        kernels.append(_check_entry(entry, make_cases))
    segments = []
    for compiler, kind, quantised in product(selection.compilers, SEGMENT_KINDS, (True, False)):
        progress(f"{compiler.source} {kind} segments")
        seeds = range(seed, seed + max(1, n_cases // _CASES_A_SEGMENT))
        segments.append(_check_compiler(compiler, kind, quantised, seeds))
    return CheckReport(n_cases, seed, tuple(kernels), tuple(segments), selection.broken)


class _CaseMaker:
    """Cases by key, made once for all kernels of the key, and one segment of each kind for all."""

    def __init__(self, n_cases: int, seed: int) -> None:
        self._seeds = range(seed, seed + n_cases)
        self.segments = [
            random_segment(kind, seed, quantised=quantised)
            for kind, quantised in product(SEGMENT_KINDS, (True, False))
        ]
        self.golden = cache(golden_cases)
        self.random = cache(self._random)
        self.bad = cache(self._bad)

    def _random(self, key: KernelKey) -> list[OpCase]:
        return [random_case(key, seed) for seed in self._seeds]

    def _bad(self, key: KernelKey) -> list[OpCase]:
        return [case for seed in self._seeds[:_BAD_SEEDS] for case in bad_data_cases(key, seed)]


def _check_entry(entry: KernelEntry, cases: _CaseMaker) -> KernelResult:
    result = KernelResult(entry)
    if entry.key not in reference_kernels():
        text = f"{entry.key} is no key of the reference: there is nothing to compare with"
        result.failures.append(CaseFailure("none", text))
        return result
    for case, n_threads in product(cases.golden(entry.key), (1, 2)):
        _count(
            result.golden,
            result.failures,
            case.name,
            check_kernel(entry.factory, case, n_threads=n_threads),
        )
    for number, case in enumerate(cases.random(entry.key)):
        failures = check_kernel(entry.factory, case, n_threads=1 + number % 3)
        if number < _MEMORY_SEEDS:
            failures += check_memory_need(entry.factory, case, n_threads=1 + number % 3)
        _count(result.random, result.failures, case.name, failures)
    for segment in cases.segments:
        chained = check_in_segment(entry.key, entry.factory, segment)
        if chained is not None:
            _count(result.chained, result.failures, segment.name, chained)
    for case in cases.bad(entry.key):
        _count(result.refusals, result.failures, case.name, check_refusal(entry.factory, case))
    return result


def _check_compiler(
    compiler: Compiler, kind: SegmentKind, quantised: bool, seeds: Iterable[int]
) -> SegmentResult:
    result = SegmentResult(compiler.source, kind, quantised)
    for seed, kernels in zip(seeds, _kernel_sets(compiler), strict=False):
        case = random_segment(kind, seed, quantised=quantised)
        failures = check_segment(compiler.compile_ops, case, kernels=kernels, n_threads=1 + seed % 3)
        if failures is None:
            result.declined.append(case.name)
        else:
            _count(result.compiled, result.failures, case.name, failures)
    return result


def _kernel_sets(compiler: Compiler) -> Iterator[Mapping[KernelKey, KernelFactory]]:
    """Give the compiler's own kernels, then those without some that the reference steps in for, and so on."""
    own = compiler.kernels
    mixed = {key: factory for key, factory in own.items() if key.code not in _FOREIGN}
    while True:
        yield own
        yield mixed


def _count(tally: Tally, failures: list[CaseFailure], case: str, found: list[str]) -> None:
    tally.add(not found)
    # The same failure with another number of threads is no news.
    named = [CaseFailure(case, failure) for failure in found]
    failures += [failure for failure in named if failure not in failures]
