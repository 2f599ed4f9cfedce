"""A GGUF file as a source of models: which of its tensors each weight is."""

from __future__ import annotations

from pathlib import Path

from dllama_proto.bounded_text import quoted
from dllama_proto.model_file import TensorEntry
from dllama_proto.names import WeightName
from dllama_worker.errors import UsageError
from dllama_worker.model.converted_model import ConvertedModel, open_converted
from dllama_worker.model.description import ModelDescription
from dllama_worker.model.families import GGUF_FAMILIES
from dllama_worker.model.fused import rows_in_fused
from dllama_worker.model.gguf.metadata import describe
from dllama_worker.model.gguf.shards import GgufModel, read_gguf
from dllama_worker.model.gguf.tensor_names import tensor_name
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.stored_tensor import StoredTensor

__all__ = ["open_gguf"]

#: Tensors that are no weights: what they say is in the description.
_FACTS = frozenset({"rope_freqs.weight"})


def open_gguf(path: Path, options: OpenOptions) -> ConvertedModel:
    """Open a GGUF model by any of its files.

    Raises UsageError naming the file, what is wrong with it or with its model, and what to do; OSError.
    """
    model = read_gguf(path)
    description = describe(model, options.max_seq_len)
    used = set(_FACTS)

    def find(entry: TensorEntry) -> StoredTensor:
        stored = _find(model, entry, description)
        used.add(stored.name)
        return stored

    opened = open_converted(path, "GGUF file", description, find, model.n_bytes, options)
    opened.metadata = model.metadata
    unused = next((name for name in model.tensors if name not in used), None)
    if unused is not None:
        raise UsageError(
            f"{path}: has a tensor {quoted(unused)}, which a model of its architecture doesn't have here: it "
            "would be computed without it, and wrong"
        )
    return opened


def _find(model: GgufModel, entry: TensorEntry, description: ModelDescription) -> StoredTensor:
    """Return an entry's matrix, its own part of a tensor of several. Raises UsageError."""
    is_fused = GGUF_FAMILIES[model.metadata["general.architecture"]].is_fused
    name = tensor_name(entry, is_fused=is_fused)
    first_row, n_rows = rows_in_fused(entry, description) if is_fused else (0, entry.d)
    if entry.name == WeightName.LOGITS and name not in model.tensors:
        name = "token_embd.weight"  # tied: the embedding is the classifier, too
    found = model.tensors.get(name)
    if found is None:
        raise UsageError(
            f"{model.path}: has no tensor {quoted(name)}, which a model of {entry.layer + 1} layers needs"
        )
    file, tensor = found
    n, *others = tensor.dims
    n_experts = others.pop() if entry.expert is not None and len(others) == 2 else 1
    d = 1
    for dim in others:
        d *= dim
    if (n, d) != (entry.n, n_rows) or not (entry.expert or 0) < n_experts:
        raise UsageError(
            f"{model.path}: tensor {quoted(name)} has dimensions {tensor.dims}, expected {entry.n} x {n_rows}"
            + ("" if entry.expert is None else " for each expert")
        )
    of_expert = tensor.n_bytes // n_experts
    start = tensor.offset + (entry.expert or 0) * of_expert + first_row * (of_expert // d)
    scale = description.scales.get(entry.name, 1.0)
    return StoredTensor(file, name, tensor.ggml_type, start, entry.d, n, scale=scale)
