"""The copy of a cache on a device: it has what the node's memory has, and little travels."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from dllama_ops_torch.cache import CopiedCache, HostCache


def positions(*numbers: int) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    return np.array(numbers, np.intp)


def memory(n_rows: int = 16) -> torch.Tensor:
    return torch.arange(n_rows * 6, dtype=torch.float32).reshape(n_rows, 2, 3)


def test_on_the_cpu_it_is_the_memory_itself() -> None:
    rows = memory()
    seen = HostCache(rows).rows(positions(4, 2))
    assert len(seen) == 5
    assert seen.data_ptr() == rows.data_ptr()


def test_each_row_travels_once_as_long_as_positions_go_up() -> None:
    rows = memory()
    cache = CopiedCache(rows, torch.device("cpu"))
    for batch in ([0, 1, 2, 3], [4], [5], [6, 7]):
        # What SHIFT does before: new rows at the batch's positions.
        rows[batch] += 1000
        seen = cache.rows(positions(*batch))
        assert torch.equal(seen, rows[: batch[-1] + 1])
    assert cache.n_copied == 8


def test_going_back_replaces_the_rows_of_the_new_batch() -> None:
    rows = memory()
    cache = CopiedCache(rows, torch.device("cpu"))
    cache.rows(positions(0, 1, 2, 3, 4))
    rows[2:4] = -1
    assert torch.equal(cache.rows(positions(2, 3)), rows[:4])
    rows[4] = -2
    assert torch.equal(cache.rows(positions(4)), rows[:5])
    assert cache.n_copied == 5 + 2 + 1


@pytest.mark.parametrize("batch", [[7], [9, 3, 5], [15, 0]])
def test_rows_that_were_written_before_the_first_forward_are_there(batch: list[int]) -> None:
    rows = memory()
    seen = CopiedCache(rows, torch.device("cpu")).rows(positions(*batch))
    assert torch.equal(seen, rows[: max(batch) + 1])


def test_a_gap_is_filled() -> None:
    rows = memory()
    cache = CopiedCache(rows, torch.device("cpu"))
    cache.rows(positions(0))
    rows[1:10] *= 2
    assert torch.equal(cache.rows(positions(9)), rows[:10])
