"""``dllama-proto inspect``: what a model or tokenizer file holds, and what each node would hold of a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dllama_proto.enums import FloatType
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.floats import BLOCK_SIZE, n_bytes
from dllama_proto.formatting import format_bytes
from dllama_proto.model_file import (
    MODEL_PREFIX_SIZE,
    TensorEntry,
    check_file_size,
    decode_model_header,
    model_header_size,
    tensor_entries,
)
from dllama_proto.model_header import ModelHeader
from dllama_proto.names import WeightName
from dllama_proto.schemas.model_file import MODEL_MAGIC
from dllama_proto.schemas.tokenizer_file import TOKENIZER_MAGIC
from dllama_proto.show.json_form import FORMAT_VERSION, plain
from dllama_proto.terminal import Table, Terminal, print_json, print_line
from dllama_proto.tokenizer_file import TokenizerFile, decode_tokenizer

__all__ = ["EvenShare", "node_memory", "obstacle_to", "possible_node_counts", "run_inspect"]

#: Whole on every node; the embedding on the root alone; all others are shared (C++ ``loadLlmNetWeight``).
_WHOLE_TENSORS = (
    WeightName.MOE_GATE,
    WeightName.NORM_Q,
    WeightName.NORM_K,
    WeightName.NORM_0,
    WeightName.NORM_1,
    WeightName.FINAL_NORM,
)
_ROOT_TENSOR = WeightName.EMBEDDING


@dataclass(frozen=True, slots=True)
class EvenShare:
    """Bytes that a node holds of a model: its share of the weights, and keys and values of ``seq_len``."""

    node: int
    weights: int
    kv_cache: int

    @property
    def total(self) -> int:
        """Both together; the buffers of a forward are small beside them."""
        return self.weights + self.kv_cache


def node_memory(header: ModelHeader, n_nodes: int) -> list[EvenShare]:
    """Return what each of ``n_nodes`` nodes holds when they share a model evenly, as the C++ root has it.

    Raises ValueError where they cannot.
    """
    reason = obstacle_to(header, n_nodes)
    if reason:
        possible = ", ".join(map(str, possible_node_counts(header)))
        raise ValueError(f"{n_nodes} nodes cannot share this model evenly: {reason}; possible: {possible}")
    shared = whole = root = 0
    for entry in tensor_entries(header):
        if entry.name == _ROOT_TENSOR:
            root += entry.n_bytes
        elif entry.name in _WHOLE_TENSORS:
            whole += entry.n_bytes
        else:
            shared += entry.n_bytes
    cache = 2 * header.n_layers * header.seq_len * n_bytes(FloatType.F32, header.kv_dim // n_nodes)
    return [
        EvenShare(node, shared // n_nodes + whole + (0 if node else root), cache) for node in range(n_nodes)
    ]


def possible_node_counts(header: ModelHeader) -> list[int]:
    """Return the numbers of nodes that can share a model evenly."""
    return [n for n in range(1, header.n_kv_heads + 1) if not obstacle_to(header, n)]


def obstacle_to(header: ModelHeader, n_nodes: int) -> str:
    """Return which dimension keeps ``n_nodes`` from sharing a model evenly, or nothing."""
    for name, size in (
        ("key-value heads", header.n_kv_heads),
        ("feed-forward columns", header.ff_dim),
        ("tokens", header.vocab_size),
    ):
        if n_nodes < 1 or size % n_nodes:
            return f"it has {size} {name}"
    unit = BLOCK_SIZE if header.weight_float_type in (FloatType.Q40, FloatType.Q80) else 1
    for name, size in (("query columns", header.q_dim), ("feed-forward columns", header.ff_dim)):
        if size // n_nodes % unit:
            return f"{size // n_nodes} {name} a node are not whole blocks of {unit}"
    return ""


# Files ------------------------------------------------------------------------------------------------


def run_inspect(
    files: Sequence[Path], n_nodes: int | None, *, as_json: bool, out: TextIO | None = None
) -> int:
    """Show files; return 1 where one is bad: it is named, with the byte."""
    out = sys.stdout if out is None else out
    bad = False
    for path in files:
        try:
            _inspect(path, n_nodes, as_json, out)
        except (RemoteProtocolError, ValueError, OSError) as error:
            where = "" if isinstance(error, OSError) else f"{path}: "
            print_line(f"dllama-proto inspect: error: {where}{error}", sys.stderr)
            bad = True
    return 1 if bad else 0


def _inspect(path: Path, n_nodes: int | None, as_json: bool, out: TextIO) -> None:
    with path.open("rb") as file:
        magic = int.from_bytes(file.read(4), "little")
        file.seek(0)
        if magic == TOKENIZER_MAGIC:
            tokenizer = decode_tokenizer(file.read())
            if as_json:
                print_json(_tokenizer_json(path, tokenizer), out)
            else:
                _print_facts(Terminal(out), path, _tokenizer_facts(tokenizer))
            return
        prefix = file.read(MODEL_PREFIX_SIZE)
        if magic != MODEL_MAGIC:
            # Old formats have their own words; all others are neither.
            model_header_size(prefix)
        header = decode_model_header(prefix + file.read(model_header_size(prefix) - len(prefix)))
    check_file_size(header, path.stat().st_size)
    memory = None if n_nodes is None else node_memory(header, n_nodes)
    if as_json:
        print_json(_model_json(path, header, memory), out)
    else:
        _print_model(Terminal(out), path, header, memory)


# Models -----------------------------------------------------------------------------------------------


def _header_facts(header: ModelHeader) -> dict[str, Any]:
    facts: dict[str, Any] = plain(header)
    del facts["pairs"], facts["orig_seq_len"]
    return facts | {"q_dim": header.q_dim, "kv_dim": header.kv_dim, "header_size": header.header_size}


def _tensor_row(entry: TensorEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "layer": entry.layer,
        "expert": entry.expert,
        "type": entry.float_type.name,
        "shape": [entry.d, entry.n],
        "offset": entry.offset,
        "n_bytes": entry.n_bytes,
    }


def _model_json(path: Path, header: ModelHeader, memory: list[EvenShare] | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "kind": "model",
        "file": str(path),
        "header": _header_facts(header),
        "tensors": [_tensor_row(entry) for entry in tensor_entries(header)],
        "node_counts": possible_node_counts(header),
    }
    if memory is not None:
        result["nodes"] = [plain(node) | {"total": node.total} for node in memory]
    return result


def _print_model(
    terminal: Terminal, path: Path, header: ModelHeader, memory: list[EvenShare] | None
) -> None:
    _print_facts(terminal, path, _header_facts(header))
    names = ("tensor", "layer", "expert", "type", "shape", "offset", "bytes")
    table = Table(*names, right=("layer", "expert", "offset", "bytes"))
    total = 0
    for entry in tensor_entries(header):
        total += entry.n_bytes
        table.add(
            entry.name,
            str(entry.layer),
            "" if entry.expert is None else str(entry.expert),
            entry.float_type.name,
            f"[{entry.d}][{entry.n}]",
            str(entry.offset),
            str(entry.n_bytes),
        )
    terminal.table(table)
    terminal.line(f"{format_bytes(total)} in all")
    terminal.line(f"can be shared evenly by {', '.join(map(str, possible_node_counts(header)))} nodes")
    if memory is None:
        return
    columns = ("node", "weights", f"keys and values of {header.seq_len} positions", "both")
    table = Table(*columns, right=columns)
    for node in memory:
        name = "0 (root)" if not node.node else str(node.node)
        table.add(name, *(format_bytes(n) for n in (node.weights, node.kv_cache, node.total)))
    terminal.table(table)


def _print_facts(terminal: Terminal, path: Path, facts: dict[str, Any]) -> None:
    terminal.line(str(path))
    width = max(map(len, facts))
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        terminal.line(f"  {name:{width}}  {text}")


# Tokenizers -------------------------------------------------------------------------------------------


def _tokenizer_facts(tokenizer: TokenizerFile) -> dict[str, Any]:
    template = tokenizer.chat_template.decode("utf-8", "replace")

    def token(index: int) -> str:
        return f"{index} {tokenizer.pieces[index].decode('utf-8', 'replace')!r}"

    return {
        "vocab_size": tokenizer.vocab_size,
        "regular tokens": tokenizer.bos_id,
        "special tokens": tokenizer.vocab_size - tokenizer.bos_id,
        "max_token_length": tokenizer.max_token_length,
        "bos": token(tokenizer.bos_id),
        "add_bos": tokenizer.add_bos,
        "eos": [token(index) for index in tokenizer.eos_ids],
        "chat_template": f"{len(tokenizer.chat_template)} bytes"
        + (f": {template[:60]!r}" if template else ""),
    }


def _tokenizer_json(path: Path, tokenizer: TokenizerFile) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "kind": "tokenizer",
        "file": str(path),
        "vocab_size": tokenizer.vocab_size,
        "max_token_length": tokenizer.max_token_length,
        "bos_id": tokenizer.bos_id,
        "add_bos": tokenizer.add_bos,
        "eos_ids": list(tokenizer.eos_ids),
        "chat_template": tokenizer.chat_template.decode("utf-8", "replace"),
    }
