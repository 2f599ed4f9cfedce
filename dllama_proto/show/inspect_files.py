"""``dllama-proto inspect``: what a model or tokenizer file holds, and what each node would hold of a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dllama_proto.enums import FloatType
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.even_split import even_node_counts, even_split_obstacle
from dllama_proto.exit_codes import CommandError, ExitCode, tell
from dllama_proto.floats import SYNC_TYPES, n_bytes
from dllama_proto.formatting import counted, format_bytes
from dllama_proto.input_files import open_regular
from dllama_proto.model_file import (
    TensorEntry,
    check_file_size,
    read_model_header,
    tensor_entries,
)
from dllama_proto.model_header import ModelHeader
from dllama_proto.names import WeightName
from dllama_proto.schemas.tokenizer_file import TOKENIZER_MAGIC
from dllama_proto.show.json_form import FORMAT_VERSION, plain
from dllama_proto.terminal import Table, Terminal, print_json
from dllama_proto.tokenizer_file import TokenizerFile, read_tokenizer

__all__ = ["EvenShare", "node_memory", "run_inspect"]

_COMMAND = "dllama-proto inspect"

#: What tells of the splits that this command does not show.
_OTHER_SPLITS = "dllama-root plan shows other splits"

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
    if header.weight_float_type not in SYNC_TYPES:
        raise ValueError(_uncomputed(header))
    obstacle = even_split_obstacle(header, n_nodes)
    if obstacle:
        possible = ", ".join(map(str, even_node_counts(header)))
        raise ValueError(
            f"{counted(n_nodes, 'node')} cannot share this model evenly: {obstacle}; an even split, as the C++ "
            f"program makes it, is possible for {possible} ({_OTHER_SPLITS})"
        )
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


def _node_counts(header: ModelHeader) -> list[int]:
    return even_node_counts(header) if header.weight_float_type in SYNC_TYPES else []


def _uncomputed(header: ModelHeader) -> str:
    types = " or ".join(float_type.name.lower() for float_type in SYNC_TYPES)
    return f"no node computes with {header.weight_float_type.name.lower()} weights: convert the model to {types}"


# Files ------------------------------------------------------------------------------------------------


def run_inspect(
    files: Sequence[Path], n_nodes: int | None, *, as_json: bool, out: TextIO | None = None
) -> int:
    """Show files; one that is bad is told, with the byte, and the others are shown.

    Returns the exit code of the first bad file, or 0.
    """
    out = sys.stdout if out is None else out
    codes = [_inspect(path, n_nodes, as_json, out) for path in files]
    return next((code for code in codes if code), ExitCode.DONE)


def _inspect(path: Path, n_nodes: int | None, as_json: bool, out: TextIO) -> ExitCode:
    memory = None
    try:
        found = _read(path)
        if n_nodes is not None and isinstance(found, ModelHeader):
            memory = _shared(found, n_nodes)
    except (RemoteProtocolError, CommandError) as error:
        return tell(_COMMAND, CommandError(f"{path}: {error}"))
    except OSError as error:
        return tell(_COMMAND, error)
    if as_json:
        document = (
            _tokenizer_json(path, found)
            if isinstance(found, TokenizerFile)
            else _model_json(path, found, memory)
        )
        print_json(document, out)
        return ExitCode.DONE
    terminal = Terminal(out)
    if isinstance(found, TokenizerFile):
        _print_facts(terminal, path, _tokenizer_facts(found))
    else:
        _print_model(terminal, path, found, memory)
    return ExitCode.DONE


def _shared(header: ModelHeader, n_nodes: int) -> list[EvenShare]:
    try:
        return node_memory(header, n_nodes)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _read(path: Path) -> TokenizerFile | ModelHeader:
    """Read what a file holds, without the tensors. Raises RemoteProtocolError where it is neither, OSError."""
    with open_regular(path) as file:
        magic = int.from_bytes(file.read(4), "little")
        file.seek(0)
        if magic == TOKENIZER_MAGIC:
            return read_tokenizer(file)
        header = read_model_header(file)
    check_file_size(header, path.stat().st_size)
    return header


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
        "node_counts": _node_counts(header),
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
    counts = ", ".join(map(str, _node_counts(header)))
    if counts:
        terminal.line(f"an even split is possible for these numbers of nodes: {counts} ({_OTHER_SPLITS})")
    else:
        terminal.line(_uncomputed(header))
    if memory is None:
        return
    columns = ("node", "weights", f"keys and values of {counted(header.seq_len, 'position')}", "both")
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
        "chat_template": counted(len(tokenizer.chat_template), "byte")
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
