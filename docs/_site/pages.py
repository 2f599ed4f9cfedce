"""What the site has beside ``docs/*.md``: pages from elsewhere in the repository, and the API reference.

A hook of MkDocs. No text stands twice: README, CHANGELOG and the like are read where they are, and links between
files of the repository become links between pages. A linked file that is no page is copied along. Each public
module gets a page of the reference, so a new one needs no entry anywhere.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGES = ("dllama_proto", "dllama_ops", "dllama_worker")

#: Pages that are not in ``docs``, and what they are called on the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/dllama-ops-torch/README.md": "example-torch.md",
}

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


# The reference -------------------------------------------------------------------------------------------


def _is_private(module: str) -> bool:
    return any(part.startswith("_") for part in module.removesuffix(".__init__").split("."))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _public_names(path: Path) -> tuple[str, ...]:
    """Return a module's ``__all__``: without one, it is for nobody else."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(ast.literal_eval(node.value))
    return ()


def _lines(path: Path) -> dict[str, int]:
    """Return where each name of a module is defined."""
    lines = {}
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            lines[node.name] = node.lineno
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            lines[ast.unparse(target)] = node.lineno
    return lines


def _homes(path: Path) -> dict[str, str]:
    """Return the public modules of this project from which a module takes its names, by name."""
    imports = (node for node in ast.walk(_tree(path)) if isinstance(node, ast.ImportFrom))
    return {
        alias.asname or alias.name: node.module
        for node in imports
        if node.module and node.module.startswith(PACKAGES) and not _is_private(node.module)
        for alias in node.names
    }


def _reference(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the public modules of a package with the addresses of their pages, packages before what is in them."""
    for path in sorted(
        folder.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path.name)
    ):
        if not _is_private(_module_name(path)) and _public_names(path):
            name = path.relative_to(ROOT).with_suffix(".md").as_posix().replace("__init__", "index")
            yield path, f"reference/{name}"


def _reference_page(path: Path) -> str:
    """Return a module's page: what it defines, then links to what it passes on."""
    module, names, homes = _module_name(path), _public_names(path), _homes(path)
    lines = _lines(path)
    own = sorted((name for name in names if name not in homes), key=lambda name: lines.get(name, 0))
    options = f"    options:\n      members: {json.dumps(own) if own else 'false'}\n"
    page = f"---\ntitle: {module}\n---\n\n::: {module}\n{options}"
    passed_on = [
        f"- [`{name}`][{homes[name]}.{name}], from `{homes[name]}`" for name in names if name in homes
    ]
    if passed_on:
        page += "\n".join(["\n## Also importable from here\n", *passed_on, ""])
    return page


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _nav(folder: Path) -> list[Any]:
    """Return a package's part of the navigation: its own page, its modules, then the packages in it."""
    modules: list[Any] = [
        address if path.name == "__init__.py" else {path.stem: address}
        for path, address in _reference(folder)
        if path.parent == folder
    ]
    packages = ((each.name, _nav(each)) for each in sorted(folder.iterdir()) if each.is_dir())
    return modules + [{name: pages} for name, pages in packages if pages]


# Pages and links -----------------------------------------------------------------------------------------


def _addresses() -> dict[str, str]:
    """Return each page's address on the site by its path in the repository."""
    pages = {path.relative_to(ROOT).as_posix(): path.name for path in (ROOT / "docs").glob("*.md")}
    return {**pages, **ELSEWHERE}


def _linked(source: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield each link to another file as it is written, and the path in the repository that it means."""
    for target in _LINK.findall(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if (ROOT / path / "README.md").is_file():
            path = f"{path}/README.md"
        if (ROOT / path).is_file():
            yield target, path


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reference to the navigation."""
    reference = [{package: _nav(ROOT / package)} for package in PACKAGES]
    config.nav = [*(config.nav or ()), {"API reference": reference}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, the files that pages link to, and the pages of the reference."""
    addresses = _addresses()
    for source, address in addresses.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source in ELSEWHERE:
            files.append(File.generated(config, address, content=text))
        for _, path in _linked(source, text):
            copy = f"files/{path}"
            if path not in addresses and copy not in files.src_uris:
                files.append(File.generated(config, copy, abs_src_path=str(ROOT / path)))
    script = ROOT / "docs/_site/iframe-worker.js"
    files.append(File.generated(config, "assets/iframe-worker.js", abs_src_path=str(script)))
    for package in PACKAGES:
        for module, address in _reference(ROOT / package):
            files.append(File.generated(config, address, content=_reference_page(module)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    addresses = _addresses()
    by_address = {address: source for source, address in addresses.items()}
    here = page.file.src_uri
    if here not in by_address:
        return markdown
    targets = {
        target: posixpath.relpath(addresses.get(path, f"files/{path}"), posixpath.dirname(here) or ".")
        for target, path in _linked(by_address[here], markdown)
    }
    return _LINK.sub(lambda found: targets.get(found[1], found[1]), markdown)
