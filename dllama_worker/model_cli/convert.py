"""``dllama-model convert``: any model as a .m file, and its tokenizer as a .t file, for the C++ program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from dllama_proto.enums import FloatType
from dllama_proto.exit_codes import ExitCode
from dllama_proto.formatting import format_bytes
from dllama_proto.model_file import encode_model_header
from dllama_proto.terminal import print_line
from dllama_proto.tokenizer_file import TokenizerFile, encode_tokenizer
from dllama_worker.errors import MachineError, UsageError
from dllama_worker.model.converted_model import ConvertedModel
from dllama_worker.model.location import locate_model
from dllama_worker.model.open_options import OpenOptions, WeightChoice
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.report import Report
from dllama_worker.root.model_files import own_tokenizer
from dllama_worker.sharding.slicing import TensorSlice
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["convert_model"]

_PART_BYTES = 8 << 20


def convert_model(source: Path, target: Path, tokenizer: Path | None, weights: WeightChoice) -> int:
    """Write the files, each whole or not at all; print what was written.

    A .m file has one type of weights, so the classifier has it, too. Raises UsageError where the model can't be
    opened or a .m file can't say what it is, MachineError where the files can't be written.
    """
    choice = WeightChoice.Q40 if weights is WeightChoice.AUTO else weights
    model = open_model(locate_model(source), OpenOptions(weights=choice, logits=choice))
    _check(model, choice)
    with Report.for_terminal().progress("convert", "weights", model.n_weight_bytes) as advance:
        _write(target, lambda file: _write_model(model, file, advance))
    print_line(f"{target}: {format_bytes(target.stat().st_size)}")
    if tokenizer is not None:
        data = encode_tokenizer(_as_t_file(own_tokenizer(model)))
        _write(tokenizer, lambda file: file.write(data))
        print_line(f"{tokenizer}: {format_bytes(len(data))}")
    return ExitCode.DONE


def _check(model: ModelSource, choice: WeightChoice) -> None:
    wanted = FloatType[choice.name]
    if not isinstance(model, ConvertedModel):
        raise UsageError(f"{model.path}: is a .m file already")
    if model.header.weight_float_type is not wanted:
        raise UsageError(
            f"{model.path}: becomes {model.header.weight_float_type.name}, expected {wanted.name}"
        )
    problem = model.description.not_exact()
    if problem:
        raise UsageError(
            f"{model.path}: has {problem}: dllama-root can run it as it is, the C++ root cannot"
        )


def _write(target: Path, write: Callable[[IO[bytes]], object]) -> None:
    part = target.with_name(target.name + ".part")
    try:
        try:
            with part.open("wb") as file:
                write(file)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{target}: cannot be written: {error.strerror or error}") from error


def _write_model(model: ModelSource, file: IO[bytes], advance: Callable[[int], None]) -> None:
    file.write(encode_model_header(model.header))
    for entry in model.tensors.values():
        for part in TensorSlice.whole(entry).parts(_PART_BYTES):
            file.write(part.data(model))
            model.release(entry, part.rows)
            advance(part.n_bytes)


def _as_t_file(tokenizer: Tokenizer) -> TokenizerFile:
    """Return the vocabulary as the C++ project's converter writes it: merged the sooner the lower its id.

    A .t file has a beginning token, and all from it on are special.
    """
    found = tokenizer.vocabulary
    bos_id = found.bos_id if found.bos_id is not None else (found.eos_ids or (len(found.pieces) - 1,))[0]
    return TokenizerFile.of(
        [piece or b"<empty %d>" % token for token, piece in enumerate(found.pieces)],
        [-float(token) for token in range(len(found.pieces))],
        bos_id=bos_id,
        eos_ids=found.eos_ids or (bos_id,),
        add_bos=found.add_bos,
        chat_template=found.templates.default.encode("utf-8", "surrogateescape"),
    )
