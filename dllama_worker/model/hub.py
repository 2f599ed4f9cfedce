"""Models of Hugging Face, by its own library: its cache, its resuming, its progress bars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllama_worker.errors import MachineError, UsageError

__all__ = ["choose_files", "fetch_from_hub"]

#: Which GGUF file is taken where nobody says: first those that nodes compute with as they are, then the usual
#: ones.
_PREFERENCE = ("Q4_0", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_1", "Q8_0", "F16", "BF16")

_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}\.gguf")
_PLACE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[\w./ -]+))?")

#: What is needed of a folder of transformers.
_FOLDER = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_MORE_TEMPLATES = re.compile(r"additional_chat_templates/[^/]+\.jinja")


def fetch_from_hub(place: str) -> Path:
    """Fetch what ``ORG/REPO[:FILE]`` names, unless the cache has it; return its path.

    ``FILE`` is a file's name or a part of it, such as ``Q8_0``. Raises UsageError where there is no such thing,
    MachineError where the hub can't be reached.
    """
    match = _PLACE.fullmatch(place)
    if match is None:
        raise UsageError(f"hf:{place}: expected hf:ORG/REPO or hf:ORG/REPO:FILE")
    hub = _import_hub()
    repo, wanted = match["repo"], match["file"]
    try:
        chosen = choose_files(repo, _list(hub, repo), wanted)
        paths = [Path(hub.hf_hub_download(repo, name)) for name in chosen]
    except hub.errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"hf:{repo}: there is no such repository, or it asks for permission: accept its terms, then hf auth "
            "login"
        ) from error
    except hub.errors.GatedRepoError as error:
        raise UsageError(f"hf:{repo}: asks for permission: accept its terms, then hf auth login") from error
    except hub.errors.HFValidationError as error:
        raise UsageError(f"hf:{repo}: is no name of a repository: {str(error)[:200]}") from error
    except UsageError:
        raise
    except Exception as error:  # whatever the library's HTTP client raises
        raise MachineError(f"hf:{repo}: cannot be fetched: {str(error).splitlines()[0][:200]}") from error
    return paths[0] if paths[0].suffix == ".gguf" else paths[0].parent


def choose_files(repo: str, files: Sequence[str], wanted: str | None) -> list[str]:
    """Return which of a repository's files make a model: all parts of a GGUF file, or a folder's, config first.

    Raises UsageError saying what there is instead.
    """
    if wanted is None and "config.json" in files and any(_is_weights(name) for name in files):
        return [name for name in files if name == "config.json"] + [
            name
            for name in files
            if _is_weights(name)
            or name in _FOLDER[1:]
            or name == "model.safetensors.index.json"
            or _MORE_TEMPLATES.fullmatch(name)
        ]
    ggufs = [name for name in files if name.endswith(".gguf") and "mmproj" not in name.lower()]
    found = _named(ggufs, wanted) if wanted else _preferred(ggufs)
    if len({_whole(name) for name in found}) == 1:
        return sorted(found)
    there = (
        ", ".join(sorted({_whole(name) for name in (found or ggufs)})) or "no GGUF file and no safetensors"
    )
    what = (
        "no model"
        if wanted is None
        else f"no {wanted!r}"
        if not found
        else f"several files with {wanted!r}"
    )
    raise UsageError(f"hf:{repo}: has {what}: there is {there[:600]}")


def _is_weights(name: str) -> bool:
    return "/" not in name and name.startswith("model") and name.endswith(".safetensors")


def _whole(name: str) -> str:
    """Return the name of a model of which a file is a part."""
    match = _SHARD.fullmatch(name)
    return f"{match[1]}.gguf" if match else name


def _named(ggufs: Sequence[str], wanted: str) -> list[str]:
    exact = [name for name in ggufs if wanted in (name, Path(name).name, _whole(name))]
    if exact:
        return [name for name in ggufs if _whole(name) == _whole(exact[0])]
    tag = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wanted)}(?![A-Za-z0-9_])", re.IGNORECASE)
    return [name for name in ggufs if tag.search(name)]


def _preferred(ggufs: Sequence[str]) -> list[str]:
    return next((found for tag in _PREFERENCE if (found := _named(ggufs, tag))), list(ggufs))


def _list(hub: Any, repo: str) -> list[str]:
    """Return a repository's files; without the hub, those that the cache has."""
    try:
        return list(hub.HfApi().list_repo_files(repo))
    except hub.errors.RepositoryNotFoundError:
        raise
    except Exception:
        try:
            cached = Path(hub.snapshot_download(repo, local_files_only=True))
        except Exception:
            cached = None
        if cached is None:
            raise  # why the hub did not answer, not that the cache is empty
        return [str(path.relative_to(cached)) for path in cached.rglob("*") if path.is_file()]


def _import_hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise UsageError(
            "models of Hugging Face are fetched by the package huggingface_hub: pip install "
            "'dllama-worker[models]'"
        ) from error
    return huggingface_hub
