"""Models of real shapes with seeded random weights, for tests and for measuring.

The numbers are NumPy's ``default_rng(seed)`` normals, drawn in the order of the file, so the same preset,
float type and seed give the same file to the last byte. Weights are scaled by 1 / sqrt(n), which keeps
activations near 1 through any number of layers; norms lie around 1. They are drawn and written in pieces: a
model need not fit into memory. ``python -m dllama_worker.model.synthetic PRESET f32|q40 MODEL TOKENIZER``
writes one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dllama_proto.command_line import CommandParser, file_path
from dllama_proto.enums import FloatType
from dllama_proto.floats import BLOCK_SIZE, Q40_BLOCK
from dllama_proto.model_file import TensorEntry, encode_model_header, tensor_entries
from dllama_proto.model_header import ModelHeader
from dllama_proto.model_shapes import MODEL_SHAPES, OTHER_NAMES
from dllama_proto.names import WeightName
from dllama_proto.tokenizer_file import TokenizerFile, encode_tokenizer
from dllama_worker.model.presets import preset_header

__all__ = ["main", "write_model", "write_tokenizer"]

#: Values drawn at a time, 16 MB of them.
_PIECE = 1 << 22


def write_model(path: Path, preset: str, weights: FloatType, seed: int, sharpness: float = 1.0) -> None:
    """Write a preset's model with random weights, F32 or Q40.

    ``sharpness`` scales the classifier: larger ones make wider gaps between logits. Raises ValueError for
    an unknown name or another float type.
    """
    if weights not in (FloatType.F32, FloatType.Q40):
        raise ValueError(f"models are made with F32 or Q40 weights, not {weights.name}")
    header = preset_header(preset, weights)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(encode_model_header(header))
        for entry in tensor_entries(header):
            for piece in _pieces(entry, header, rng, sharpness):
                file.write(piece.tobytes())


def write_tokenizer(path: Path, vocab_size: int) -> None:
    """Write a tokenizer for a synthetic model: bytes as tokens, names in angle brackets for the rest.

    The last token is the end, the one before it the beginning; nothing merges.
    """
    pieces = [bytes([i]) if 0 < i < 256 else b"<%d>" % i for i in range(vocab_size)]
    tokenizer = TokenizerFile.of(
        pieces, [0.0] * vocab_size, bos_id=vocab_size - 2, eos_ids=[vocab_size - 1]
    )
    path.write_bytes(encode_tokenizer(tokenizer))


def _pieces(
    entry: TensorEntry, header: ModelHeader, rng: np.random.Generator, sharpness: float
) -> Iterator[npt.NDArray[Any]]:
    """Draw a tensor, whole rows at a time."""
    if entry.name == WeightName.EMBEDDING:
        scale, base = 1.0, 0.0
    elif entry.d == 1:
        scale, base = 0.1, 1.0
    else:
        scale, base = (sharpness if entry.name == WeightName.LOGITS else 1.0) / math.sqrt(entry.n), 0.0
    finish: Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]] = (
        _to_q40 if entry.float_type is FloatType.Q40 else lambda values: values.astype("<f4")
    )
    rows = max(1, _PIECE // entry.n)
    for start in range(0, entry.d, rows):
        values = rng.standard_normal((min(rows, entry.d - start), entry.n), dtype=np.float32)
        if base:
            yield values * np.float32(scale) + np.float32(base)
        else:
            yield finish(values.astype(np.float64) * scale)


def _to_q40(values: npt.NDArray[np.float64]) -> npt.NDArray[np.void]:
    """Quantise as model converters do: in float64, not in the float32 of a running node."""
    groups = values.reshape(-1, BLOCK_SIZE)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1)[:, 0]
    d = (largest / -8).astype(np.float32)
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
    codes = np.clip(groups * inverse[:, None] + 8.5, 0, 15).astype(np.uint8)
    blocks = np.empty(len(groups), dtype=Q40_BLOCK)
    blocks["d"] = d.astype("<f2")
    blocks["qs"] = codes[:, :16] | (codes[:, 16:] << 4)
    return blocks


def main(argv: list[str] | None = None) -> None:
    """Write the files that the command line asks for."""
    parser = CommandParser(
        prog="python -m dllama_worker.model.synthetic",
        description="Write a model of a known shape with random weights, and a tokenizer for it.",
    )
    parser.add_argument("preset", choices=[*MODEL_SHAPES, *OTHER_NAMES])
    parser.add_argument("weights", choices=["f32", "q40"])
    parser.add_argument("model", type=file_path)
    parser.add_argument("tokenizer", type=file_path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sharpness", type=float, default=1.0, help="scale of the classifier (default 1)")
    options = parser.parse_args(argv)
    weights = FloatType[options.weights.upper()]
    write_model(options.model, options.preset, weights, options.seed, options.sharpness)
    write_tokenizer(options.tokenizer, preset_header(options.preset, weights).vocab_size)


if __name__ == "__main__":
    main()
