"""What the docstrings of schemas say, and schemas that tell which bytes each field takes.

The form of those docstrings is described in :mod:`dllama_proto.schemas`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import construct

from dllama_proto import schemas
from dllama_proto.schemas.wire import Choice, bare

__all__ = ["Example", "Reading", "docstrings", "examples_of", "public_schemas"]

#: The modules that define what schemas are made of; all others define messages and files.
_NO_MESSAGES = {"__init__", "incremental", "layout", "op_spec", "wire"}

_EXAMPLE = re.compile(
    r"^Example(?: of ``(?P<schema>[^`]+)``)?[^`\n]*(?:with ``(?P<context>[^`]+)``)?::\n\n"
    r"(?P<lines>(?:    .+\n)+)\n"
    r"Size in bytes: ``(?P<size>[^`]+)``\.\n",
    re.M,
)
_FIELD = re.compile(r'(\w+)(?:=("[^"]*"|[^,]+))?(?:, |$)')


# Docstrings ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One example. ``lines`` are bytes with the names of the fields in them, and the values as text."""

    module: ModuleType
    expression: str
    context: dict[str, Any]
    lines: list[tuple[bytes, list[tuple[str, str]]]]
    size: str

    @property
    def data(self) -> bytes:
        return b"".join(data for data, _ in self.lines)

    @property
    def schema(self) -> Any:
        """The schema, or the bytes of a message that is always the same."""
        return _evaluated(self.expression, vars(self.module))

    def read(self) -> Reading:
        return Reading(self.schema, self.data, self.context)

    def size_of(self, reading: Reading) -> Any:
        """Return the size that the rule says for what was read."""
        by_parts = re.sub(r"\bsize\((\w+)\)", lambda part: str(reading.parts[part[1]]), self.size)
        names = {**vars(self.module), **reading.context, **reading.values, "len": _length}
        return _evaluated(by_parts, names)


def _evaluated(expression: str, names: Mapping[str, Any]) -> Any:
    return eval(expression, {"__builtins__": {}}, dict(names))  # noqa: S307 # our own documentation


def _length(value: Any) -> int:
    return len(value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)


def docstrings(module: ModuleType) -> dict[str, str]:
    """Return the string below each assignment of a module, by the assigned name."""
    found = {}
    for statement, below in pairwise(ast.parse(Path(str(module.__file__)).read_text()).body):
        match statement, below:
            case ast.Assign(targets=[ast.Name(name)]), ast.Expr(ast.Constant(str(text))):
                found[name] = text
    return found


def examples_of(module: ModuleType, name: str) -> list[Example]:
    """Return the examples in the docstring below a name."""
    return [
        Example(
            module,
            found["schema"] or name,
            _evaluated(f"dict({found['context'] or ''})", {**vars(module), "dict": dict}),
            [_split_line(line) for line in found["lines"].splitlines()],
            found["size"],
        )
        for found in _EXAMPLE.finditer(docstrings(module).get(name, ""))
    ]


def _split_line(line: str) -> tuple[bytes, list[tuple[str, str]]]:
    data, _, names = line.strip().partition("  ")
    return bytes.fromhex(data), _FIELD.findall(names.strip())


def public_schemas() -> list[tuple[ModuleType, str]]:
    """Return the public schemas, messages that are always the same, tables of schemas without other names."""
    found = []
    for path in sorted(Path(schemas.__file__).parent.glob("*.py")):
        if path.stem in _NO_MESSAGES:
            continue
        module = import_module(f"dllama_proto.schemas.{path.stem}")
        values = {name: getattr(module, name) for name in module.__all__}
        named = {id(value) for value in values.values() if isinstance(value, construct.Construct)}
        for name, value in values.items():
            nameless = isinstance(value, Mapping) and {id(each) for each in _schemas_in(value)} - named
            if isinstance(value, construct.Construct | bytes) or nameless:
                found.append((module, name))
    return found


def _schemas_in(value: Any) -> Iterator[Any]:
    if isinstance(value, construct.Construct):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _schemas_in(each)


# Fields ----------------------------------------------------------------------------------------------


class Reading:
    """Bytes as a schema reads them.

    ``leaves`` are name, size and value of every field that has no parts, in the order of the bytes; ``parts``
    and ``values`` are sizes and values of the uppermost fields.
    """

    def __init__(self, schema: Any, data: bytes, context: Mapping[str, Any]) -> None:
        self.context = context
        self.leaves: list[tuple[str, int, Any]] = []
        self.parts: dict[str, int] = {}
        self.values: dict[str, Any] = {}
        self.value = self._logged(schema, "value", top=True).parse(data, **context)

    def _logged(self, schema: Any, name: str, *, top: bool = False) -> Any:
        inner = copy(bare(schema))
        if isinstance(inner, construct.Struct):
            inner.subcons = [self._member(subcon, top=top) for subcon in inner.subcons]
        elif isinstance(inner, Choice):
            inner.cases = {key: self._logged(case, name, top=top) for key, case in inner.cases.items()}
        elif _has_fields(inner):
            inner.subcon = self._logged(inner.subcon, name)
        else:
            return _Logged(inner, lambda size, value: self._leaf(name, size, value))
        return inner

    def _member(self, subcon: Any, *, top: bool) -> Any:
        logged = self._logged(subcon, subcon.name or "padding")
        if subcon.name is None:
            return logged
        if top:
            logged = _Logged(logged, lambda size, value: self._part(subcon.name, size, value))
        return subcon.name / logged

    def _leaf(self, name: str, size: int, value: Any) -> None:
        if not isinstance(value, construct.Container):
            self.leaves.append((name, size, value))
            return
        # Fields of bits: the first stands for the bytes of all.
        for bits, number in value.items():
            if bits != "_io":
                self.leaves.append((bits, size, number))
                size = 0

    def _part(self, name: str, size: int, value: Any) -> None:
        self.parts[name] = size
        self.values[name] = value


def _has_fields(schema: Any) -> bool:
    """Whether it repeats or wraps a struct whose fields are whole bytes."""
    while isinstance(
        schema, construct.Array | construct.GreedyRange | construct.FixedSized | construct.Aligned
    ):
        schema = bare(schema.subcon)
    return isinstance(schema, construct.Struct)


class _Logged(construct.Subconstruct):  # type: ignore[misc]
    """A schema that reports size and value of what it has parsed."""

    def __init__(self, subcon: Any, report: Callable[[int, Any], None]) -> None:
        super().__init__(subcon)
        self._report = report

    def _parse(self, stream: Any, context: Any, path: str) -> Any:
        start = stream.tell()
        value = self.subcon._parsereport(stream, context, path)
        self._report(stream.tell() - start, value)
        return value
