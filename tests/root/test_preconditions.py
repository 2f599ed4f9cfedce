"""What cannot succeed is refused in one line, with nobody dialled and no weights read."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllama_proto.exit_codes import ExitCode
from dllama_proto.tokenizer_file import TokenizerFile, decode_tokenizer, encode_tokenizer
from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH
from dllama_worker.model.m_file import ModelFile
from dllama_worker.root.cli import main

_DEMO = decode_tokenizer(Path(TOKENIZER_PATH).read_bytes())


def _vocabulary(n_more: int, chat_template: bytes = b"") -> TokenizerFile:
    """Return the demo model's, with more tokens or fewer, and another template."""
    n = _DEMO.vocab_size + min(0, n_more)
    return TokenizerFile.of(
        [*_DEMO.pieces[:n], *(f"<more{i}>".encode() for i in range(n_more))],
        [*_DEMO.scores[:n], *(0.0 for _ in range(n_more))],
        bos_id=_DEMO.bos_id,
        eos_ids=[token for token in _DEMO.eos_ids if token < n],
        chat_template=chat_template,
    )


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    def write(name: str, n_more: int, chat_template: bytes = b"") -> Path:
        path = tmp_path / name
        path.write_bytes(encode_tokenizer(_vocabulary(n_more, chat_template)))
        return path

    return {
        "no_template": write("plain.t", 0),
        "larger": write("larger.t", 3),
    }


_TEXT = "To be, or not to be: that is the question. "

_CASES = {
    "no template": ("chat --model {model} --tokenizer {no_template}", "the tokenizer has no chat template"),
    "no such template": ("chat --chat-template chatml2", "chatml2"),
    "a prompt longer than the context": (
        ["inference", "--max-seq-len", "8", "--prompt", _TEXT],
        "tokens, more than the 8 of --steps or the context",
    ),
    "a prompt longer than --steps": (
        ["inference", "--steps", "4", "--prompt", _TEXT],
        "tokens, more than the 4 of --steps or the context",
    ),
    "a text too short": (["perplexity", "--prompt", ""], "perplexity needs a prompt of 2 tokens or more"),
    "another model's tokenizer": (
        "inference --prompt x --model {model} --tokenizer {larger}",
        "larger.t has 515 tokens, more than the 512 of",
    ),
    "an impossible split": (
        ["inference", "--prompt", "x", "--split", "1:1:1"],
        "has 3 weights, expected 2",
    ),
    "more nodes than heads": (["inference", "--prompt", "x", "--local-workers", "40"], "nodes"),
    "a worker twice": (["inference", "--prompt", "x", "--workers", "{address}"], "twice"),
    "two names of one worker": (
        ["inference", "--prompt", "x", "--workers", "localhost:{port}"],
        "are the same worker, 127.0.0.1:",
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_nobody_is_dialled_and_nothing_read(
    case: str,
    listener: socket.socket,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_weights(*arguments: object) -> None:
        pytest.fail("weights were read")

    monkeypatch.setattr(ModelFile, "rows", no_weights)
    line, complaint = _CASES[case]
    port = listener.getsockname()[1]
    names = {"model": MODEL_PATH, "address": f"127.0.0.1:{port}", "port": port} | files
    words = [word.format(**names) for word in (line.split() if isinstance(line, str) else line)]
    arguments = [*words, "--workers", f"127.0.0.1:{port}"]
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == ExitCode.CALLER
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    told = [*errors, *capsys.readouterr().err.splitlines()[-1:]]
    assert any(complaint in text for text in told), told
    assert len(errors) <= 1
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_vocabulary_may_be_filled_up(tmp_path: Path) -> None:
    """Fewer tokens than rows are no error."""
    smaller = tmp_path / "smaller.t"
    smaller.write_bytes(encode_tokenizer(_vocabulary(-1)))
    arguments = ["--prompt", "x", "--steps", "4", "--model", str(MODEL_PATH), "--tokenizer", str(smaller)]
    assert main(["inference", *arguments]) == ExitCode.DONE
