"""``dllama-model inspect``: what a model is, and what a cluster needs for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dllama_proto.exit_codes import ExitCode
from dllama_proto.formatting import counted, format_bytes
from dllama_proto.terminal import Table, Terminal, print_json
from dllama_worker.errors import UsageError
from dllama_worker.model.converted_model import ConvertedModel
from dllama_worker.model.location import locate_model
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.root.layout import sync_type_of
from dllama_worker.root.model_files import own_tokenizer
from dllama_worker.root.planning.demand import count_demand
from dllama_worker.sharding.apportion import partition_for, possible_node_counts
from dllama_worker.sharding.split import EVEN
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["inspect_model"]

_VERSION = 1
_NODE_COUNTS = (1, 2, 3, 4)

#: Facts of a header, in the order in which people look for them.
_FACTS = (
    "arch", "n_layers", "dim", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "n_experts", "n_active_experts",
    "moe_hidden_dim", "vocab_size", "seq_len", "hidden_act", "norm_epsilon", "rope_type", "rope_theta",
    "rope_scaling_factor", "weight_float_type", "logits_float_type",
)  # fmt: skip


def inspect_model(path: Path, options: OpenOptions, *, as_json: bool) -> int:
    """Print it. Raises UsageError where the model can't be opened, MachineError where it can't be fetched."""
    model = open_model(locate_model(path), options)
    document = _document(model)
    if as_json:
        print_json(document)
    else:
        _print(document, Terminal())
    return ExitCode.DONE


def _document(model: ModelSource) -> dict[str, Any]:
    header = model.header
    facts = {name: getattr(header, name) for name in _FACTS}
    return {
        "version": _VERSION,
        "file": str(model.path),
        "kind": model.kind,
        "bytes": model.n_bytes,
        "weight_bytes": model.n_weight_bytes,
        "conversions": model.conversions,
        "header": {name: getattr(value, "name", value) for name, value in facts.items()},
        "stored": _stored(model),
        "tokenizer": _tokenizer(model),
        "nodes": _memory(model),
    }


def _stored(model: ModelSource) -> dict[str, dict[str, int]]:
    """Return how many tensors are stored as each type, and their bytes."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    if isinstance(model, ConvertedModel):
        for tensor in {(one.file.path, one.offset): one for one in model.stored.values()}.values():
            count[tensor.ggml_type.name] += 1
            size[tensor.ggml_type.name] += tensor.n_bytes
    else:
        for entry in model.tensors.values():
            count[entry.float_type.name] += 1
            size[entry.float_type.name] += entry.n_bytes
    return {name: {"tensors": count[name], "bytes": size[name]} for name in sorted(count)}


def _tokenizer(model: ModelSource) -> dict[str, Any] | str:
    """Return facts of the model's own tokenizer, or why there are none."""
    try:
        tokenizer: Tokenizer = own_tokenizer(model)
    except UsageError as error:
        return str(error)
    found = tokenizer.vocabulary

    def named(token: int) -> dict[str, Any]:
        return {"id": token, "text": found.pieces[token].decode("utf-8", "replace")}

    return {
        "tokens": tokenizer.vocab_size,
        "bos": None if found.bos_id is None else named(found.bos_id),
        "add_bos": found.add_bos,
        "eos": [named(token) for token in found.eos_ids],
        "chat_template": bool(found.templates.default),
        "chat_templates": list(found.templates.sources),
    }


def _memory(model: ModelSource) -> list[dict[str, Any]]:
    """Return the bytes of root and workers, for those few numbers of nodes that can share the model."""
    possible = possible_node_counts(model.header)
    sync_type = sync_type_of(model.header.weight_float_type)
    rows = []
    for n_nodes in _NODE_COUNTS:
        if n_nodes not in possible:
            continue
        need = count_demand(model.header, partition_for(model.header, EVEN, n_nodes), sync_type).nodes
        workers = max((node.memory for node in need[1:]), default=None)
        rows.append({"nodes": n_nodes, "root": need[0].memory, "worker": workers})
    return rows


def _print(document: dict[str, Any], terminal: Terminal) -> None:
    terminal.line(f"{document['file']}: {document['kind']}, {format_bytes(document['bytes'])}")
    table = Table("fact", "value")
    for name, value in document["header"].items():
        if value not in (0, 0.0):
            table.add(name, f"{value:g}" if isinstance(value, float) else str(value))
    terminal.table(table)
    for name, found in document["stored"].items():
        terminal.line(f"{name}: {counted(found['tensors'], 'tensor')}, {format_bytes(found['bytes'])}")
    terminal.line(
        f"loaded as {format_bytes(document['weight_bytes'])}: {document['conversions'] or 'as stored'}"
    )
    _print_tokenizer(document["tokenizer"], terminal)
    table = Table("nodes", "root", "each worker", right=("nodes", "root", "each worker"))
    for row in document["nodes"]:
        worker = "" if row["worker"] is None else format_bytes(row["worker"])
        table.add(str(row["nodes"]), format_bytes(row["root"]), worker)
    terminal.line("memory, with the whole context (--max-seq-len makes it less):")
    terminal.table(table)


def _print_tokenizer(found: dict[str, Any] | str, terminal: Terminal) -> None:
    if isinstance(found, str):
        terminal.line(f"tokenizer: {found}")
        return
    ends = ", ".join(f"{one['id']} {one['text']}" for one in found["eos"]) or "none"
    begins = "" if found["bos"] is None or not found["add_bos"] else f", begins with {found['bos']['text']}"
    templates = found["chat_templates"]
    template = f"chat templates {', '.join(templates)}" if len(templates) > 1 else "chat template"
    template = f"with {template}" if templates else f"without {template}"
    terminal.line(f"tokenizer: {counted(found['tokens'], 'token')}{begins}, ends at {ends}, {template}")
