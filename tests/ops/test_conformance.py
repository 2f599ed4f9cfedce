"""One suite for every kernel of every plugin that is installed, chosen or not."""

from __future__ import annotations

from typing import Any

import pytest

from dllama_ops import KernelEntry, build_kernel_table, make_plugin_manager
from dllama_ops.testing import (
    bad_data_cases,
    check_kernel,
    check_memory_need,
    check_refusal,
    golden_case,
    golden_names,
    random_case,
)

ENTRIES = build_kernel_table(make_plugin_manager(), prefer="numpy").entries
SEEDS = range(12)


def _name(entry: KernelEntry) -> str:
    return f"{entry.source}-{entry.key.code.name}-{entry.key.quant.name}".lower()


def _recorded() -> list[Any]:
    return [
        pytest.param(entry, case, id=f"{entry.source}-{case}")
        for entry in ENTRIES
        for case in golden_names(entry.key)
    ]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("entry", "case"), _recorded())
def test_agrees_with_what_was_recorded(entry: KernelEntry, case: str, n_threads: int) -> None:
    assert check_kernel(entry.factory, golden_case(case), n_threads=n_threads) == []


@pytest.mark.parametrize("entry", ENTRIES, ids=_name)
def test_agrees_with_the_reference_on_random_cases(entry: KernelEntry) -> None:
    for seed in SEEDS:
        case = random_case(entry.key, seed)
        assert check_kernel(entry.factory, case, n_threads=1 + seed % 2) == [], case.name


@pytest.mark.parametrize("entry", ENTRIES, ids=_name)
def test_refuses_indexes_out_of_range(entry: KernelEntry) -> None:
    for seed in SEEDS[:4]:
        for case in bad_data_cases(entry.key, seed):
            assert check_refusal(entry.factory, case) == [], case.name


@pytest.mark.parametrize("entry", ENTRIES, ids=_name)
def test_takes_no_more_memory_than_it_states(entry: KernelEntry) -> None:
    for seed in SEEDS[:6]:
        case = random_case(entry.key, seed)
        assert check_memory_need(entry.factory, case, n_threads=1 + seed % 2) == [], case.name
