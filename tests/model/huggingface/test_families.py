"""Every family computes what transformers computes of the same weights, on one node and shared among several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama_worker.errors import UsageError
from dllama_worker.model.opening import open_model
from dllama_worker.model.synthetic import write_tokenizer
from dllama_worker.model_cli.cli import main
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.report import Report
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session
from dllama_worker.sharding.split import parse_split
from tests.helpers.serving import serving
from tests.helpers.tiny_models import TINY_MODELS

_FOLDERS = sorted((TINY_MODELS / "families").iterdir())
_TOLERANCE = 2e-3


@pytest.mark.parametrize("split", ["", "even", "3:1"])
@pytest.mark.parametrize("folder", _FOLDERS, ids=lambda folder: folder.name)
def test_logits_are_those_of_transformers(tmp_path: Path, folder: Path, split: str) -> None:
    tokenizer = tmp_path / "tokenizer.t"
    write_tokenizer(tokenizer, 512)
    with np.load(folder / "expected.npz") as stored:
        tokens, expected = stored["ids"].tolist(), stored["logits"]
    with serving(1 if split else 0) as workers:
        options = RootOptions(
            command="inference",
            model=folder,
            tokenizer=tokenizer,
            workers=tuple(workers),
            split=parse_split(split or "even"),
            max_seq_len=64,
            n_threads=1,
        )
        with open_session(options, Report()) as session:
            batches = [tokens[at : at + 32] for at in range(0, len(tokens), 32)]
            logits = np.concatenate(
                [session.inference.forward(batch, ForwardTimes()).copy() for batch in batches]
            )
    assert np.abs(logits - expected).max() < _TOLERANCE
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_factors_are_in_the_weights() -> None:
    model = open_model(TINY_MODELS / "families" / "granite")
    entry = model.tensors["embedding", 0, None]
    rows = model.rows(entry, range(2))
    assert np.abs(rows).max() > 12  # twelve times normal numbers


@pytest.mark.parametrize(("family", "said"), [("qwen2", "biases"), ("smollm3", "layers without rotation")])
def test_a_m_file_has_no_place_for_some(
    tmp_path: Path, family: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(TINY_MODELS / "families" / family), str(tmp_path / "o.m")]) == 2
    assert said in capsys.readouterr().err


def test_a_family_that_lacks_a_bias_is_refused(tmp_path: Path) -> None:
    source = TINY_MODELS / "families" / "qwen2"
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    data = (source / "model.safetensors").read_bytes().replace(b"q_proj.bias", b"q_proj.bios")
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UsageError, match=r"has no tensor 'model\.layers\.0\.self_attn\.q_proj\.bias'"):
        open_model(tmp_path)
