"""What the project says of itself: its version, its changelog, what can be made."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dllama_ops
import dllama_proto
import dllama_worker
from dllama_proto.version import installed_version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
FRAGMENTS = ROOT / "changelog.d"


def run(*command: str, cwd: Path = ROOT) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


# Version ------------------------------------------------------------------------------------------------


def test_every_package_has_the_projects_version() -> None:
    versions = [package.__version__ for package in (dllama_proto, dllama_ops, dllama_worker)]
    assert versions == [VERSION] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("dllama_proto", "dllama-proto"),
        ("dllama_ops", "dllama-ops"),
        ("dllama_worker", "dllama-worker"),
        ("dllama_worker doctor", "dllama-worker doctor"),
        ("dllama_worker.root", "dllama-root"),
        ("dllama_worker.model_cli", "dllama-model"),
    ],
)
def test_every_command_says_its_version(module: str, name: str) -> None:
    assert run(sys.executable, "-m", *module.split(), "--version") == f"{name} {VERSION}\n"


def test_every_installed_command_is_among_them() -> None:
    assert set(PROJECT["project"]["scripts"]) == {
        "dllama-proto",
        "dllama-ops",
        "dllama-worker",
        "dllama-root",
        "dllama-model",
    }


@pytest.mark.slow
def test_looking_the_version_up_is_left_until_somebody_asks() -> None:
    program = (
        "import sys, dllama_ops, dllama_worker, dllama_proto\n"
        "from dllama_worker.worker.cli import make_parser\n"
        "make_parser()\n"
        "print('importlib.metadata' in sys.modules)\n"
        "dllama_worker.__version__\n"
        "print('importlib.metadata' in sys.modules)\n"
    )
    assert run(sys.executable, "-c", program) == "False\nTrue\n"


def test_sources_that_are_not_installed_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllama_proto.version._DISTRIBUTION", "no-such-distribution")
    assert installed_version() == "0+unknown"


# Changelog ----------------------------------------------------------------------------------------------


def fragments() -> list[Path]:
    return sorted(path for path in FRAGMENTS.glob("*.md") if path.name != "README.md")


def test_the_changelog_has_this_version_or_fragments_of_it() -> None:
    """As the release workflow looks for it."""
    assert fragments() or f"## {VERSION} (" in (ROOT / "CHANGELOG.md").read_text()


def test_the_kinds_of_fragments_are_those_that_the_folder_tells_of() -> None:
    kinds = [kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]]
    assert re.findall(r"^\| `(\w+)` \|", (FRAGMENTS / "README.md").read_text(), re.M) == kinds


@pytest.mark.slow
def test_every_fragment_gets_into_the_next_release() -> None:
    draft = run(sys.executable, "-m", "towncrier", "build", "--draft")
    assert f"## {VERSION} (" in draft
    text = " ".join(draft.split())  # a fragment of several lines is indented in the list
    assert [
        path.name for path in fragments() if f"- {' '.join(path.read_text().split())}" not in text
    ] == []


@pytest.mark.slow
def test_a_release_moves_fragments_into_the_changelog(tmp_path: Path) -> None:
    """With the project's own settings and template, in a project of its own."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\nIntro.\n\n<!-- releases -->\n\n## 0.0.1 (2020-01-01)\n"
    )
    folder = tmp_path / "changelog.d"
    folder.mkdir()
    (folder / "template.md.jinja").write_text((FRAGMENTS / "template.md.jinja").read_text())
    (folder / "+a.fixed.md").write_text("What `--fast` broke.\n")
    (folder / "+b.added.md").write_text("`--fast`.\n")
    run("git", "init", "--quiet", cwd=tmp_path)
    run("git", "add", ".", cwd=tmp_path)
    run(sys.executable, "-m", "towncrier", "build", "--yes", "--date", "2026-01-02", cwd=tmp_path)
    assert (tmp_path / "CHANGELOG.md").read_text() == (
        "# Changelog\n\nIntro.\n\n<!-- releases -->\n\n"
        f"## {VERSION} (2026-01-02)\n\n"
        "### Added\n\n- `--fast`.\n\n"
        "### Fixed\n\n- What `--fast` broke.\n\n"
        "## 0.0.1 (2020-01-01)\n"
    )
    assert [path.name for path in folder.iterdir()] == ["template.md.jinja"]


# Make ---------------------------------------------------------------------------------------------------


def test_make_alone_tells_of_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    targets = " ".join(re.findall(r"^\.PHONY: ([^$\n]+)$", makefile, re.M)).split()
    told = [line.split() for line in run("make", "--no-print-directory").splitlines()]
    assert [target for target in targets if not any(target in words for words in told)] == []
    assert [words for words in told if words[0] not in targets] == []
