"""Models in GGUF files compute what transformers computes of the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama_worker.model.open_options import WeightChoice
from dllama_worker.model.synthetic import write_tokenizer
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.report import Report
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session
from tests.helpers.serving import serving
from tests.helpers.tiny_models import expected_logits, tiny_gguf

_TOLERANCE = 2e-3


def _logits(
    model: Path, tokens: list[int], tmp_path: Path, n_workers: int, weights: WeightChoice
) -> np.ndarray:
    tokenizer = tmp_path / "tokenizer.t"
    write_tokenizer(tokenizer, 512)
    with serving(n_workers) as workers:
        options = RootOptions(
            command="inference",
            model=model,
            tokenizer=tokenizer,
            workers=tuple(workers),
            max_seq_len=64,
            n_threads=1,
            weight_float_type=weights,
        )
        with open_session(options, Report()) as session:
            batches = [tokens[at : at + 32] for at in range(0, len(tokens), 32)]
            return np.concatenate(
                [session.inference.forward(batch, ForwardTimes()).copy() for batch in batches]
            )


@pytest.mark.parametrize("n_workers", [0, 1])
@pytest.mark.parametrize("name", ["llama-f32", "llama-q4_0", "qwen3-q4_0", "qwen3moe-q4_0"])
def test_in_f32_logits_are_those_of_transformers(tmp_path: Path, name: str, n_workers: int) -> None:
    tokens, expected = expected_logits(name)
    logits = _logits(tiny_gguf(name), tokens, tmp_path, n_workers, WeightChoice.F32)
    assert np.abs(logits - expected).max() < _TOLERANCE
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("name", ["llama-q4_0", "qwen3-q4_0", "qwen3moe-q4_0"])
def test_blocks_as_they_are_stored_are_near(tmp_path: Path, name: str) -> None:
    tokens, expected = expected_logits(name)
    logits = _logits(tiny_gguf(name), tokens, tmp_path, 1, WeightChoice.AUTO)
    # Rows between nodes have 8 bits here.
    assert np.abs(logits - expected).mean() < 0.02 * np.abs(expected).max()
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
