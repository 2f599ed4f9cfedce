"""A Hugging Face folder as a source of models: which of its tensors each weight is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dllama_proto.bounded_text import quoted
from dllama_proto.enums import RopeType
from dllama_proto.model_file import TensorEntry
from dllama_proto.names import WeightName
from dllama_worker.errors import UsageError
from dllama_worker.model.converted_model import ConvertedModel, open_converted
from dllama_worker.model.description import ModelDescription
from dllama_worker.model.families import HUGGING_FACE_FAMILIES, ModelFamily
from dllama_worker.model.fused import rows_in_fused
from dllama_worker.model.huggingface.config import describe, read_config
from dllama_worker.model.huggingface.safetensors_file import SafeTensor, read_safetensors
from dllama_worker.model.huggingface.tensor_names import EMBEDDING, tensor_name
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.stored_tensor import StoredTensor

__all__ = ["CONFIG_FILE", "open_folder"]

#: What makes a folder a model's.
CONFIG_FILE = "config.json"

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"

#: Buffers that older versions of transformers saved, which are made from the configuration.
_BUFFERS = ".rotary_emb.inv_freq"


def open_folder(folder: Path, options: OpenOptions) -> ConvertedModel:
    """Open a model's folder: ``config.json`` and its .safetensors files, by the index where there is one.

    Raises UsageError naming the file, what is wrong with it or with its model, and what to do; OSError.
    """
    config = folder / CONFIG_FILE
    facts = read_config(config)
    description = describe(config, facts, options.max_seq_len)
    family = HUGGING_FACE_FAMILIES[facts["model_type"]]
    tensors = _read_tensors(folder)
    used = set()

    def find(entry: TensorEntry) -> StoredTensor:
        stored = _find(folder, tensors, entry, description, family)
        used.add(stored.name)
        return stored

    n_bytes = sum({tensor.file.path: tensor.file.data.nbytes for tensor in tensors.values()}.values())
    opened = open_converted(folder, "Hugging Face folder", description, find, n_bytes, options)
    # A tied classifier may be stored all the same.
    unused = (name for name in tensors if name not in used and not name.endswith(_BUFFERS))
    if (name := next(unused, None)) is not None:
        raise UsageError(
            f"{folder}: has a tensor {quoted(name)}, which a model of its type doesn't have here: it would be "
            "computed without it, and wrong"
        )
    return opened


def _read_tensors(folder: Path) -> dict[str, SafeTensor]:
    tensors: dict[str, SafeTensor] = {}
    for path in _files(folder):
        for tensor in read_safetensors(path):
            if tensor.name in tensors:
                raise UsageError(
                    f"{path}: has tensor {quoted(tensor.name)}, as {tensors[tensor.name].file.path} does"
                )
            tensors[tensor.name] = tensor
    return tensors


def _files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.exists():
        if not (folder / _SINGLE).exists():
            raise UsageError(
                f"{folder}: has no {_SINGLE} and no {_INDEX}: models are read from safetensors only, not from "
                ".bin files"
            )
        return [folder / _SINGLE]
    weight_map = read_config(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UsageError(f"{index}: weight_map: expected an object of tensors' names and files")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise UsageError(f"{index}: names a file {quoted(name)}, expected one beside it")
        if not (folder / name).exists():
            raise UsageError(
                f"{folder / name}: is missing, one of the {len(names)} files of the model: download it, too"
            )
    return [folder / name for name in names]


def _find(
    folder: Path,
    tensors: Mapping[str, SafeTensor],
    entry: TensorEntry,
    description: ModelDescription,
    family: ModelFamily,
) -> StoredTensor:
    """Return an entry's matrix. Raises UsageError."""
    is_fused = family.is_fused
    name = tensor_name(entry, is_fused=is_fused)
    first_row, n_rows = rows_in_fused(entry, description) if is_fused else (0, entry.d)
    if entry.name == WeightName.LOGITS and name not in tensors:
        name = EMBEDDING  # tied: the embedding is the classifier, too
    tensor = tensors.get(name)
    if tensor is None:
        raise UsageError(
            f"{folder}: has no tensor {quoted(name)}, which a model of {description.n_layers} layers needs"
        )
    if tensor.ggml_type is None:
        raise UsageError(
            f"{tensor.file.path}: tensor {quoted(name)} is stored as {tensor.dtype}, expected F32, F16 or BF16: "
            "take the model's original, or a GGUF"
        )
    if tensor.shape != (n_rows, entry.n) and (entry.d > 1 or tensor.shape != (entry.n,)):
        raise UsageError(
            f"{tensor.file.path}: tensor {quoted(name)} has shape {tensor.shape}, expected ({n_rows}, {entry.n})"
        )
    start = tensor.offset + first_row * (tensor.n_bytes // n_rows)
    scale = description.scales.get(entry.name, 1.0)
    pair_dim = _pair_dim(entry, description)
    return StoredTensor(tensor.file, name, tensor.ggml_type, start, entry.d, entry.n, pair_dim, scale)


def _pair_dim(entry: TensorEntry, description: ModelDescription) -> int:
    """Return the width of heads to interleave: those of llama, which its ROPE rotates in pairs of neighbours."""
    if description.rope_type is not RopeType.LLAMA or entry.name not in (WeightName.Q, WeightName.K):
        return 0
    return description.head_dim or description.dim // description.n_heads
