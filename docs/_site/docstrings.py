"""Docstrings as this project writes them, turned into what the site's generator reads.

An extension of Griffe, which reads the sources without running them. Roles (``:class:`Tensor```) become links,
``::`` before a block of code becomes one colon, and a comment ``#:`` above a constant becomes its docstring.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class ProjectDocstrings(griffe.Extension):
    """Rewrites the docstrings of a package, once all of it is read and names can be looked up."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite every docstring of a package."""
        self._rewrite(pkg)

    def _rewrite(self, node: griffe.Object) -> None:
        if isinstance(node, griffe.Attribute) and node.docstring is None:
            node.docstring = _comment_above(node)
        if node.docstring is not None:
            text = _ROLE.sub(lambda role: _link(node, *role.groups()), node.docstring.value)
            node.docstring.value = re.sub(r"::$", ":", text, flags=re.M)
        if node.docstring is None and node.is_special and node.name != "__init__":
            node.public = False
        for member in node.members.values():
            if isinstance(member, griffe.Object):  # an alias is rewritten where it is at home
                self._rewrite(member)


def _comment_above(node: griffe.Attribute) -> griffe.Docstring | None:
    if node.lineno is None or isinstance(node.filepath, list):
        return None
    lines = node.lines_collection[node.filepath]
    first = node.lineno - 1
    while first > 0 and lines[first - 1].lstrip().startswith("#:"):
        first -= 1
    text = "\n".join(line.lstrip()[2:].strip() for line in lines[first : node.lineno - 1])
    return griffe.Docstring(text, lineno=first + 1, parent=node) if text else None


def _link(node: griffe.Object, short: str, name: str) -> str:
    """Return a link to what a role names, or its name as code where that has no page."""
    shown = name.rpartition(".")[2] if short else name
    path = _path(node, name)
    return f"`{shown}`" if path is None else f"[`{shown}`][{path}]"


def _path(node: griffe.Object, name: str) -> str | None:
    """Return the path of a public object, looked up from where it is named."""
    scope = node if isinstance(node, griffe.Module | griffe.Class) else node.parent
    candidates = [name]
    while scope is not None:
        candidates.append(f"{scope.path}.{name}")
        scope = scope.parent
    for candidate in candidates:
        found = _look_up(node, candidate)
        if found is not None and found.is_public and not re.search(r"\._[a-z]", found.path):
            return found.path
    return None


def _look_up(node: griffe.Object, path: str) -> griffe.Object | None:
    try:
        found = node.modules_collection[path]
        return found.final_target if isinstance(found, griffe.Alias) else found
    except (KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
        return None
