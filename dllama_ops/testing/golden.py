"""The recordings that come with the kit: single ops run by the real C++ kernels, as cases.

They are package data, ``vectors/``; its README says where they come from and what each file holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np

from dllama_ops.cases.case import Memory, OpCase, View
from dllama_ops.kernel import KernelKey
from dllama_ops.reference.specs import OPS
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType, OpCode, OpQuantType

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["golden_case", "golden_cases", "golden_names"]

_VECTORS = files("dllama_ops.testing") / "vectors"

_Record = Mapping[str, Any]


def golden_names(key: KernelKey | None = None) -> list[str]:
    """Return the names of the recordings, of all or of those for a key; keys that C++ lacks have none."""
    return [name for name, record in _index().items() if key is None or _key(record) == key]


def golden_cases(key: KernelKey) -> list[OpCase]:
    """Return the recordings for a key, to be passed to ``check_kernel``."""
    return [golden_case(name) for name in golden_names(key)]


def golden_case(name: str) -> OpCase:
    """Return one recording. Raises KeyError where there is none of this name."""
    record = _index()[name]
    with (_VECTORS / f"{name}.npz").open("rb") as file, np.load(file) as arrays:
        before = _contents(arrays, "before")
        after = _contents(arrays, "after")
        weight_bytes = arrays["weight_0"].tobytes() if "weight_0" in arrays else b""
    sizes = {f"pipe {pipe}": size["size"] for pipe, size in record["pipes"].items()} | {
        f"buffer {buffer}": size["size"] for buffer, size in record["buffers"].items()
    }
    key, fields = _key(record), record["params"]

    def make_params(tensors: Mapping[str, Tensor]) -> DataclassInstance:
        cls = OPS.get(key.code).params
        hints = get_type_hints(cls)
        return cls(**{name: _value(hints[name], value, tensors) for name, value in fields.items()})

    return OpCase(
        name=name,
        key=key,
        n_batches=record["n_batches"],
        batch_size=record["batch_size"],
        memories={
            memory: Memory(
                FloatType(size["float_type"]), size["z"], size["y"], size["x"], contents=before[memory]
            )
            for memory, size in sizes.items()
        },
        input=_view(record, record["input"]),
        output=_view(record, record["output"]),
        params=make_params,
        weight=_weight(record["weight_size"]),
        weight_bytes=weight_bytes,
        expected=after,
    )


@cache
def _index() -> Mapping[str, _Record]:
    """Return what each recording's config says, by name."""
    return MappingProxyType(json.loads((_VECTORS / "index.json").read_text(encoding="utf-8")))


def _key(record: _Record) -> KernelKey:
    return KernelKey(OpCode[record["op"]], OpQuantType[record["quant"]])


def _contents(arrays: Any, when: str) -> dict[str, bytes]:
    return {
        f"{source} {name}": arrays[f"{source}_{when}/{name}"].tobytes()
        for source in ("pipe", "buffer")
        for name in arrays[f"{source}s"].tolist()
    }


def _value(kind: Any, value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return a field of params: JSON has the names of memories and of enum members."""
    if not isinstance(value, str):
        return value
    return kind[value] if isinstance(kind, type) and issubclass(kind, IntEnum) else tensors[value]


def _view(record: _Record, pointer: _Record) -> View:
    memory = f"{pointer['source']} {pointer['name']}"
    if pointer["type"] == "raw":
        return View(memory, raw=True)
    width = pointer["size"]["x"]
    if pointer["type"] == "batched_slice":
        return View(memory, (width * record["node_index"], width * (record["node_index"] + 1)))
    return View(memory)


def _weight(size: _Record) -> WeightSpec | None:
    float_type = FloatType(size["float_type"])
    return None if float_type is FloatType.UNK else WeightSpec(float_type, size["z"], size["y"], size["x"])
