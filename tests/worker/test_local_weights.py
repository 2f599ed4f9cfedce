"""``--model``: the root's weights are held against the local file; a wrong file is named, and where it differs."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dllama_worker import Worker
from dllama_worker.demo import MODEL_PATH
from dllama_worker.errors import NodeError, UsageError, WeightMismatch
from dllama_worker.model.opening import open_model

REPOSITORY = Path(__file__).parents[2]


def serve_demo_root(model: Path, *split: str) -> NodeError | str:
    """Serve one session of a root that streams the demo model; return how it ended."""
    worker = Worker(port=0, model_path=model)
    ended: list[NodeError | str] = []

    def serve() -> None:
        try:
            worker.connect()
            worker.load_weights()
            ended.append(worker.run())
        except NodeError as error:
            ended.append(error)
        finally:
            worker.disconnect()

    try:
        _, port = worker.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        subprocess.run(
            [sys.executable, "-m", "dllama_worker.root", "inference", "--prompt", "ROMEO:", "--steps", "12",
             "--temperature", "0", "--workers", f"127.0.0.1:{port}", *split],
            cwd=REPOSITORY, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        thread.join(timeout=60)
    finally:
        worker.close()
    return ended[0]


@pytest.mark.slow
def test_the_same_model_passes() -> None:
    assert serve_demo_root(Path(MODEL_PATH)) == "the root stopped"


@pytest.mark.slow
def test_one_other_byte_is_found_and_the_tensor_named(tmp_path: Path) -> None:
    model = open_model(Path(MODEL_PATH))
    entry = model.tensors["block_matmul_w2", 2, None]
    changed = bytearray(Path(MODEL_PATH).read_bytes())
    changed[entry.offset + entry.n_bytes - 1] ^= 1
    path = tmp_path / "changed.m"
    path.write_bytes(changed)
    ended = serve_demo_root(path)
    assert isinstance(ended, WeightMismatch)
    assert "block_matmul_w2 of layer 2" in str(ended)
    assert str(path) in str(ended)


@pytest.mark.slow
def test_a_model_of_another_shape_is_named() -> None:
    tiny = REPOSITORY / "tests/data/golden/models/tiny-q40.m"
    ended = serve_demo_root(tiny)
    assert isinstance(ended, UsageError)
    assert "is not the root's model" in str(ended)


@pytest.mark.slow
def test_an_uneven_split_is_named_as_a_reason() -> None:
    ended = serve_demo_root(Path(MODEL_PATH), "--split", "3:1")
    assert isinstance(ended, UsageError)
    assert "or the root shares it out unevenly (start without --model then)" in str(ended)


def test_a_truncated_model_names_the_tensor_and_the_missing_bytes(tmp_path: Path) -> None:
    path = tmp_path / "short.m"
    path.write_bytes(Path(MODEL_PATH).read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"short\.m.*final_matmul_logits.*100"):
        Worker(port=0, model_path=path)
