"""What holds of every package: light imports, sorted and true ``__all__``, types that travel along.

Which package may import which is checked by import-linter (``make lint``).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from dllama_ops import native

ROOT = Path(__file__).parents[1]
PACKAGES = ("dllama_proto", "dllama_ops", "dllama_worker")


def modules() -> list[str]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return sorted(name.removesuffix(".__init__") for name in names if not name.endswith("__main__"))


def source_of(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text())


def public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split("."))


def defines_something(module: str) -> bool:
    """Whether there is more than a docstring."""
    return len(source_of(module).body) > 1


def loaded_by(*imports: str) -> set[str]:
    """The top-level and named modules that a new process has after some imports."""
    program = f"import {', '.join(imports)}, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dllama_proto", {"construct", "dllama_ops", "dllama_worker"}),
        ("dllama_proto.enums", {"construct"}),
        ("dllama_ops", {"construct", "numpy", "dllama_worker"}),
        ("dllama_ops.reference", {"construct", "dllama_proto.connection", "dllama_proto.schemas"}),
        ("dllama_proto.connection", {"socket", "selectors", "asyncio", "dllama_ops", "dllama_worker"}),
        ("dllama_worker.worker.cli", {"numpy", "construct", "pluggy"}),
    ],
)
def test_an_import_loads_no_more_than_it_says(module: str, absent: set[str]) -> None:
    loaded = loaded_by(module)
    assert module in loaded
    assert absent & loaded == set()


@pytest.mark.parametrize("module", [name for name in modules() if public(name) and defines_something(name)])
def test_public_names_are_listed_sorted_and_exist(module: str) -> None:
    if module.startswith("dllama_ops.native.") and native.unavailable:
        pytest.skip(native.unavailable)
    imported = import_module(module)
    names = getattr(imported, "__all__", None)
    assert names is not None, "a public module says what is public in it"
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(imported, name)] == []


@pytest.mark.parametrize("module", modules())
def test_every_module_says_what_it_decides(module: str) -> None:
    assert ast.get_docstring(source_of(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
