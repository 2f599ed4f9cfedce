"""What a file is that was taken for a model or a tokenizer, by its first bytes: people are told, and what to do.

Formats are recognised by their published marks: GGUF and GGML (llama.cpp), safetensors (the size of a JSON object,
then the object), zip (PyTorch), git-lfs pointers (their version 1), compressed files, and what a server sends in
place of a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dllama_proto.schemas.model_file import MODEL_MAGIC
from dllama_proto.schemas.tokenizer_file import TOKENIZER_MAGIC

__all__ = ["FileKind", "HEAD_SIZE", "recognise_file"]

#: How many bytes of a file :func:`recognise_file` looks at.
HEAD_SIZE = 256

_CONVERT_MODEL = (
    "a .m file is made from the model's original safetensors by Distributed-Llama's convert-hf.py"
)
_CONVERT_TOKENIZER = "a .t file is made of it by Distributed-Llama's convert-tokenizer-*.py"
_SWAPPED = "are --model and --tokenizer swapped?"


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is, with its article, and what to do with one."""

    name: str
    advice: str


_MARKS: tuple[tuple[bytes, FileKind], ...] = (
    (MODEL_MAGIC.to_bytes(4, "little"), FileKind("a model (.m file)", _SWAPPED)),
    (TOKENIZER_MAGIC.to_bytes(4, "little"), FileKind("a tokenizer (.t file)", _SWAPPED)),
    (b"GGUF", FileKind("a GGUF file", "dllama-root takes it as --model")),
    (b"tjgg", FileKind("a GGML file", f"llama.cpp's old format; {_CONVERT_MODEL}")),
    (b"lmgg", FileKind("a GGML file", f"llama.cpp's old format; {_CONVERT_MODEL}")),
    (b"PK\x03\x04", FileKind("a zip archive", f"unpack it; if it is PyTorch's .pth or .bin: {_CONVERT_MODEL}")),
    (b"\x1f\x8b", FileKind("a gzip file", "unpack it")),
    (b"BZh", FileKind("a bzip2 file", "unpack it")),
    (b"\xfd7zXZ\x00", FileKind("an xz file", "unpack it")),
    (b"\x28\xb5\x2f\xfd", FileKind("a zstd file", "unpack it")),
    (b"\x0a\x0e\x0a\x05<unk>", FileKind("a SentencePiece tokenizer", _CONVERT_TOKENIZER)),
)  # fmt: skip

_PAGE = FileKind(
    "a web page",
    "the server answered with a page, an error or a login perhaps, in place of the file; download it again, on "
    "Hugging Face from /resolve/ and not /blob/",
)
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?size (\d{1,20})\n")

#: A safetensors file may begin so: 8 bytes with the size of its header, at most this, then the header in JSON.
_MAX_SAFETENSORS_HEADER = 100_000_000
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]+")


def recognise_file(head: bytes) -> FileKind | None:
    """Return what a file is, by ``HEAD_SIZE`` bytes of it or all; None where they are of no known kind."""
    head = head[:HEAD_SIZE]
    if not head:
        return FileKind("an empty file", "was it downloaded whole?")
    for mark, kind in _MARKS:
        if head.startswith(mark):
            return kind
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _MAX_SAFETENSORS_HEADER:
        return FileKind(
            "a safetensors file",
            "dllama-root takes the folder that it is in, with its config.json, as --model",
        )
    pointer = _LFS.match(head)
    if pointer:
        return FileKind(
            f"a git-lfs pointer to a file of {int(pointer[1])} bytes",
            "run git lfs pull to get the file itself",
        )
    return _text_kind(head)


def _text_kind(head: bytes) -> FileKind | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"<(?:!doctype|html|head|body|\?xml|error)\b", start, re.IGNORECASE):
        return _PAGE
    if not _TEXT.fullmatch(head):
        return None
    if start.startswith((b"{", b"[")):
        return FileKind("a JSON text", f"tokenizer.json, perhaps; {_CONVERT_TOKENIZER}")
    line = start.split(b"\n", 1)[0].decode("ascii")
    return FileKind(f"a text that begins {line[:60]!r}", "was the right file downloaded?")
