"""The recordings that come with the kit: all there, as they were recorded, and found by key."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import pytest

from dllama_ops import KernelKey
from dllama_ops.testing import golden_case, golden_cases, golden_names
from dllama_proto.enums import OpCode, OpQuantType

VECTORS = files("dllama_ops.testing") / "vectors"
SILU = KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32)


def test_every_file_is_the_one_that_was_recorded() -> None:
    index = json.loads((VECTORS / "index.json").read_text(encoding="utf-8"))
    recorded = {f"{name}.npz": record["npz_sha256"] for name, record in index.items()}
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VECTORS.iterdir()
        if path.name.endswith(".npz")
    }
    assert there == recorded
    assert len(there) == 61


def test_cases_are_found_by_key() -> None:
    assert [case.name for case in golden_cases(SILU)] == golden_names(SILU)
    assert sorted(golden_names(SILU)) == ["silu", "silu-z3"]
    assert {case.key for case in golden_cases(SILU)} == {SILU}
    assert golden_cases(KernelKey(OpCode.MATMUL, OpQuantType.F32_Q40_F32)) == []
    assert len(golden_names()) == 61


def test_a_case_has_memory_before_and_after_and_its_weight() -> None:
    case = golden_case("matmul-q80-q40-experts")
    assert case.weight is not None
    assert len(case.weight_bytes) == case.weight.n_bytes
    assert set(case.expected) == set(case.memories)
    assert case.expected["buffer out"] != case.memories["buffer out"].contents


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no-such-op"):
        golden_case("no-such-op")
