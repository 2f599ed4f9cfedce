"""Which model a session has, and which tokenizer: its own where its file has one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH
from dllama_worker.errors import UsageError
from dllama_worker.model.location import locate_model
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.report import Report
from dllama_worker.root.options import ClusterOptions
from dllama_worker.root.preconditions import check_vocabulary
from dllama_worker.tokenizer.folder import TOKENIZER_FILE, read_folder
from dllama_worker.tokenizer.gguf_vocabulary import read_gguf_vocabulary
from dllama_worker.tokenizer.interface import Tokenizer
from dllama_worker.tokenizer.opening import load_tokenizer

__all__ = ["open_model_files", "own_tokenizer"]


def open_model_files(options: ClusterOptions, report: Report) -> tuple[ModelSource, Tokenizer]:
    """Open the model and its tokenizer; without a model, those of the demo.

    Raises UsageError naming the file and what is wrong with it, or that a tokenizer is missing or another model's.
    """
    model_path, tokenizer_path = options.model, options.tokenizer
    if model_path is None:
        model_path, tokenizer_path = Path(MODEL_PATH), tokenizer_path or Path(TOKENIZER_PATH)
        report.info("demo_model", "no --model: using the small demo model that comes with this package")
    model = open_model(locate_model(model_path), options.open_options)
    if tokenizer_path is None:
        tokenizer, tokenizer_path = own_tokenizer(model), model_path
    else:
        tokenizer = load_tokenizer(
            tokenizer_path, cpp_tokens=options.cpp_tokens, warn=partial(report.warning, "cpp_tokens")
        )
    check_vocabulary(tokenizer, tokenizer_path, model.header, model_path)
    return model, tokenizer


def own_tokenizer(model: ModelSource) -> Tokenizer:
    """Return the tokenizer that comes with a model. Raises UsageError where none does, or it can't be used."""
    if model.metadata:
        return read_gguf_vocabulary(model.path, model.metadata)
    if (model.path / TOKENIZER_FILE).is_file():
        return read_folder(model.path)
    raise UsageError(f"{model.path}: has no tokenizer in it: give the model's with --tokenizer")
