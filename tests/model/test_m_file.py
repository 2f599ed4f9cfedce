"""Opening model files, slicing their tensors, and writing models with random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.enums import FloatType
from dllama_proto.floats import bytes_to_values
from dllama_proto.tokenizer_file import decode_tokenizer
from dllama_worker import demo
from dllama_worker.errors import UsageError
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.model.synthetic import main, write_model, write_tokenizer
from dllama_worker.sharding.slicing import TensorSlice, block_size
from tests.helpers.captures import CASES, GOLDEN, load

_MODELS = {kind: open_model(GOLDEN / "models" / f"tiny-{kind}.m") for kind in ("f32", "q40")}


def _raw_rows(model: ModelSource, name: str, layer: int = 0) -> list[bytes]:
    entry = model.tensors[name, layer, None]
    data = model.path.read_bytes()[entry.offset : entry.offset + entry.n_bytes]
    size = len(data) // entry.d
    return [data[i * size : (i + 1) * size] for i in range(entry.d)]


def test_tensors_are_views_of_the_file() -> None:
    model = open_model(demo.MODEL_PATH)
    assert model.n_bytes == demo.MODEL_PATH.stat().st_size
    for entry in model.tensors.values():
        units = model.rows(entry, range(entry.d))
        assert units.base is not None
        assert not units.flags.writeable
        assert units.shape[0] == entry.d
        assert units.nbytes == entry.n_bytes
    norm = model.rows(model.tensors["final_norm", 0, None], range(1))
    assert norm.shape == (1, 256)
    assert np.isfinite(norm).all()


def test_the_context_is_cut_where_asked() -> None:
    assert open_model(demo.MODEL_PATH, OpenOptions(max_seq_len=100)).header.seq_len == 100


@pytest.mark.parametrize("kind", ["f32", "q40"])
@given(data=st.data())
def test_row_slices_are_the_rows_bytes_and_no_copy(kind: str, data: st.DataObject) -> None:
    model = _MODELS[kind]
    start = data.draw(st.integers(0, 127))
    stop = data.draw(st.integers(start + 1, 128))
    part = TensorSlice.of_rows(model.tensors["block_matmul_k", 1, None], range(start, stop))
    taken = part.data(model)
    assert bytes(taken) == b"".join(_raw_rows(model, "block_matmul_k", 1)[start:stop])
    assert len(taken) == part.n_bytes
    assert np.shares_memory(np.frombuffer(taken, np.uint8), model.rows(part.entry, range(part.entry.d)))


@pytest.mark.parametrize("kind", ["f32", "q40"])
@given(data=st.data())
def test_column_slices_take_the_same_blocks_of_every_row(kind: str, data: st.DataObject) -> None:
    model = _MODELS[kind]
    entry = model.tensors["block_matmul_w2", 0, None]
    unit = block_size(entry.float_type)
    start = data.draw(st.integers(0, entry.n // unit - 1))
    stop = data.draw(st.integers(start + 1, entry.n // unit))
    part = TensorSlice.of_columns(entry, range(start * unit, stop * unit))
    size = 4 if kind == "f32" else 18
    expected = b"".join(row[start * size : stop * size] for row in _raw_rows(model, "block_matmul_w2"))
    assert bytes(part.data(model)) == expected
    assert part.n_bytes == len(expected)
    whole = bytes_to_values(entry.float_type, b"".join(_raw_rows(model, "block_matmul_w2")))
    values = bytes_to_values(entry.float_type, part.data(model)).reshape(entry.d, -1)
    assert (values == whole.reshape(entry.d, -1)[:, start * unit : stop * unit]).all()


def test_slices_put_together_are_the_tensor() -> None:
    model = _MODELS["q40"]
    entry = model.tensors["block_matmul_w1", 0, None]
    parts = [TensorSlice.of_rows(entry, range(i, i + 64)) for i in range(0, entry.d, 64)]
    whole = bytes(TensorSlice.whole(entry).data(model))
    assert b"".join(bytes(part.data(model)) for part in parts) == whole


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (range(129), range(128)),
        (range(-1, 5), range(128)),
        (range(5, 5), range(128)),
        (range(128), range(160)),
        (range(128), range(16, 128)),
        (range(128), range(100)),
        (range(0, 128, 2), range(128)),
    ],
)
def test_a_slice_that_is_no_part_of_the_tensor_is_refused(rows: range, columns: range) -> None:
    with pytest.raises(ValueError, match="block_matmul_k of layer 0"):
        TensorSlice(_MODELS["q40"].tensors["block_matmul_k", 0, None], rows, columns)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.m: cannot be read as a model: No such file"):
        open_model(tmp_path / "none.m")
    with pytest.raises(UsageError, match="Is a directory"):
        open_model(tmp_path)


def test_a_truncated_model_names_the_file_the_tensor_and_the_missing_bytes(tmp_path: Path) -> None:
    path = tmp_path / "cut.m"
    path.write_bytes(demo.MODEL_PATH.read_bytes()[:-7])
    with pytest.raises(UsageError, match=r"cut\.m: tensor final_matmul_logits .* 7 bytes missing"):
        open_model(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04" * 10])
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.m"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"odd\.m: ModelHeader\.magic at byte 0"):
        open_model(path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_synthetic_models_are_those_of_the_recordings(case: str, tmp_path: Path) -> None:
    info = load(case).info
    path = tmp_path / "model.m"
    write_model(path, info["preset"], FloatType[info["weights"].upper()], info["seed"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == info["model_sha256"]


def test_the_synthetic_tokenizer_is_that_of_the_recordings(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.t"
    write_tokenizer(path, 512)
    assert path.read_bytes() == (GOLDEN / "models" / "tiny.t").read_bytes()


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    model, tokenizer = tmp_path / "a.m", tmp_path / "a.t"
    main(["tiny", "q40", str(model), str(tokenizer), "--seed", "3"])
    assert open_model(model).header.vocab_size == decode_tokenizer(tokenizer.read_bytes()).vocab_size
    assert model.read_bytes() != (GOLDEN / "models" / "tiny-q40.m").read_bytes()


def test_models_are_only_made_with_types_that_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not F16"):
        write_model(tmp_path / "a.m", "tiny", FloatType.F16, 1)
