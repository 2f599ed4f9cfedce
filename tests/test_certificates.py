"""``dllama-worker certificates``: what it makes, and that it never overwrites."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from dllama_worker.__main__ import main
from dllama_worker.certificates.authority import make_certificates
from dllama_worker.errors import UsageError
from dllama_worker.node.tls import TlsFiles, load_tls


def test_nodes_are_added_to_a_cluster(tmp_path: Path) -> None:
    out = tmp_path / "tls"
    assert main(["certificates", "--out", str(out), "root", "attic"]) == 0
    authority = (out / "ca.crt").read_bytes()
    made = make_certificates(out, ["cellar"], 30)
    assert made == [out / "cellar.key", out / "cellar.crt"]
    assert (out / "ca.crt").read_bytes() == authority
    for node in ("root", "attic", "cellar"):
        load_tls(TlsFiles(out / f"{node}.crt", out / f"{node}.key", out / "ca.crt"))
    assert {path.stat().st_mode & 0o777 for path in out.glob("*.key")} == {0o600}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["attic"], 30)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"attic\.crt is there already"):
        make_certificates(tmp_path, ["cellar", "attic"], 30)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(UsageError, match="no node can be for 36500 days"):
        make_certificates(tmp_path, ["cellar"], 36500)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(UsageError, match="an authority is both"):
        make_certificates(tmp_path, ["cellar"], 30)


@pytest.mark.parametrize("name", ["../x", "ca", "", "a b", "-a", "a" * 64])
def test_a_name_is_a_files_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a node's name"):
        make_certificates(tmp_path, [name], 30)
    assert not list(tmp_path.iterdir())


def test_without_cryptography(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'dllama-worker\[tls\]'"):
        make_certificates(tmp_path, ["attic"], 30)
