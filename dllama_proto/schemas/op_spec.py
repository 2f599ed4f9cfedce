"""What an op is on the wire, said once: all that reads, verifies, shows or exports configs asks here.

A new op is a record, its schema and an :class:`OpConfigSpec`, registered in
:data:`dllama_proto.schemas.op_configs.OPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from dllama_proto.enums import OpCode, PointerSource
from dllama_proto.fault import Fault
from dllama_proto.messages import NetConfig, NodeConfig, Size3D
from dllama_proto.schemas._size import SIZE_3D
from dllama_proto.schemas.wire import Record, bare

__all__ = ["ConfigIndex", "OpConfigRegistry", "OpConfigSpec"]

C = TypeVar("C")


class ConfigIndex(NamedTuple):
    """A field of a config that is the number of a pipe or buffer."""

    name: str
    source: PointerSource
    number: int


def _no_fields(config: Any) -> Collection[str]:
    return ()


def _no_faults(path: str, config: Any, net: NetConfig, node: NodeConfig) -> Iterable[Fault]:
    return ()


@dataclass(frozen=True, slots=True, eq=False)
class OpConfigSpec(Generic[C]):
    """An op code with its config.

    ``schema`` says which fields are numbers of pipes or buffers (``PipeIndex``, ``BufferIndex``) and which
    are sizes of tensors; those are verified for every op. ``unread`` returns the fields of a config that no
    node looks at, ``undefined`` those whose bytes the C++ root leaves as it found them; both as paths
    (``slice.q_shift``). ``verify`` yields what else is wrong with a config whose indexes are right, its
    paths beginning with the path that it is given.
    """

    code: OpCode
    schema: Record[C]
    unread: Callable[[C], Collection[str]] = _no_fields
    undefined: Callable[[C], Collection[str]] = _no_fields
    verify: Callable[[str, C, NetConfig, NodeConfig], Iterable[Fault]] = _no_faults

    _sizes: tuple[tuple[str, Callable[[Any], Size3D]], ...] = field(init=False)

    def __post_init__(self) -> None:
        paths = tuple((path, attrgetter(path)) for path in _size_paths(self.schema))
        object.__setattr__(self, "_sizes", paths)

    @property
    def config(self) -> type[C]:
        """The record of the config."""
        return self.schema.cls

    def indexes(self, config: C) -> list[ConfigIndex]:
        """Return the numbers of pipes and buffers that a node goes by, in the order on the wire."""
        if not self.schema.indexes:
            return []
        meaningless = (*self.unread(config), *self.undefined(config))
        return [
            ConfigIndex(name, source, getattr(config, name))
            for name, source in self.schema.indexes
            if name not in meaningless
        ]

    def sizes(self, config: C) -> list[tuple[str, Size3D]]:
        """Return the sizes of tensors in a config, with their paths."""
        return [(path, get(config)) for path, get in self._sizes]

    def defined(self, config: C) -> C:
        """Return the config with 0 in every field that is undefined: what two roots would say alike."""
        for path in self.undefined(config):
            config = _zeroed(config, path)
        return config


def _size_paths(schema: Record[Any], prefix: str = "") -> Iterator[str]:
    for subcon in schema.subcons:
        inner = bare(subcon)
        if inner is SIZE_3D:
            yield prefix + subcon.name
        elif isinstance(inner, Record):
            yield from _size_paths(inner, f"{prefix}{subcon.name}.")


def _zeroed(record: Any, path: str) -> Any:
    name, _, inner = path.partition(".")
    value = getattr(record, name)
    if inner:
        return replace(record, **{name: _zeroed(value, inner)})
    return replace(record, **{name: bytes(len(value)) if isinstance(value, bytes) else type(value)(0)})


class OpConfigRegistry:
    """Op specs by code. Readers look a code up when they need it: what is registered counts from then on."""

    def __init__(self, specs: Iterable[OpConfigSpec[Any]] = ()) -> None:
        self._specs: dict[OpCode, OpConfigSpec[Any]] = {}
        self._codes: dict[int, OpCode] = {}
        self._schemas: dict[OpCode, Record[Any]] = {}
        #: The codes by number, and the schema of each code's config, as they are now.
        self.codes: Mapping[int, OpCode] = MappingProxyType(self._codes)
        self.schemas: Mapping[OpCode, Record[Any]] = MappingProxyType(self._schemas)
        for spec in specs:
            self.register(spec)

    def register(self, spec: OpConfigSpec[Any]) -> None:
        """Add an op. Raises ValueError where its code is taken."""
        code, other = spec.code, self._specs.get(spec.code)
        if other is not None:
            raise ValueError(
                f"op code {code.value} is registered as {other.code.name} with {other.config.__name__}: "
                f"{code.name} with {spec.config.__name__} needs another code"
            )
        self._specs[code] = spec
        self._codes[code.value] = code
        self._schemas[code] = spec.schema

    def remove(self, code: OpCode) -> None:
        """Take an op out again. Raises KeyError where it is not there."""
        del self._specs[code], self._codes[code.value], self._schemas[code]

    def get(self, code: OpCode) -> OpConfigSpec[Any]:
        """Return the spec of a code. Raises KeyError where there is none."""
        return self._specs[code]

    def __contains__(self, code: object) -> bool:
        return code in self._specs

    def __iter__(self) -> Iterator[OpConfigSpec[Any]]:
        return iter(tuple(self._specs.values()))

    def __len__(self) -> int:
        return len(self._specs)
