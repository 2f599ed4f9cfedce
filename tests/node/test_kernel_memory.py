"""What a node's kernels take is known, and refused, before one is made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllama_ops.kernel import KernelKey
from dllama_ops.memory_need import KernelNeed, assumed_need, kernel_need, total_need
from dllama_ops.plugins import make_plugin_manager
from dllama_ops.table import KernelEntry, build_kernel_table
from dllama_ops.testing import random_case
from dllama_proto.enums import OpCode, OpQuantType
from dllama_worker.errors import InternalError, MachineError
from dllama_worker.node.kernel_memory import KernelMemory, MemoryPart, kernel_memory
from dllama_worker.node.memory import MemoryNeed, check_memory, memory_need
from dllama_worker.node.node import Node
from tests.fuzz.hungry import narrow_matmuls
from tests.fuzz.targets import parse

_CONTEXT = random_case(KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32), 0).bind().context


def test_weights_that_native_kernels_fill_up_are_named_as_such() -> None:
    pytest.importorskip("dllama_ops.native._core")
    agreed = parse(narrow_matmuls(1, 1 << 16, 4))
    assert agreed is not None
    table = build_kernel_table(make_plugin_manager(), "native:baseline")
    limit = memory_need(agreed.net, agreed.node).in_all
    with pytest.raises(MachineError, match=r"matmul weights 1\.2 MB padded from 147\.5 kB") as caught:
        Node(agreed.net, agreed.node, {}, table, 1, lambda *_: None, limit)  # type: ignore[arg-type]
    assert "what kernels share" in str(caught.value)
    assert f"expected no more than {limit:,} (--max-memory" in str(caught.value)


def test_what_is_shared_counts_once_and_what_passes_as_its_largest() -> None:
    needs = [KernelNeed(1, 10, 100, {"a": 1000}), KernelNeed(2, 20, 300, {"a": 5000, "b": 7000})]
    total = total_need(needs)
    assert (total.weight, total.lasting, total.passing) == (3, 30, 300)
    assert total.shared == {"a": 5000, "b": 7000}


def test_a_factory_that_says_nothing_is_taken_to_need_what_is_usual() -> None:
    assert kernel_need(lambda context: None, _CONTEXT) == assumed_need(_CONTEXT)  # type: ignore[arg-type,return-value]


def test_a_factory_that_states_nonsense_is_a_fault_of_its_own() -> None:
    def make(context: object) -> None: ...

    make.memory_need = lambda context: 17  # type: ignore[attr-defined]
    with pytest.raises(InternalError, match=r"expected memory_need of .* to return a KernelNeed, got 17"):
        kernel_memory([(_CONTEXT, KernelEntry(_CONTEXT.key, "numpy", "", 0, make))])  # type: ignore[arg-type]


def test_a_sum_names_its_largest_parts_only() -> None:
    need = MemoryNeed(pipes=5, buffers=400, weights=1, bookkeeping=30)
    check_memory(need, 436)
    with pytest.raises(
        MachineError, match=r"needs 436 bytes \(buffers 400 B, bookkeeping 30 B, pipes 5 B\)"
    ):
        check_memory(need, 435)
    check_memory(replace(need, kernels=KernelMemory((MemoryPart("matmul weights", 1, 1),))), 436)
