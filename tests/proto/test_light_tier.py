"""Enums, float types, errors and records come without a parser; what is public is listed and documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import dllama_proto

_LIGHT = (
    "dllama_proto",
    "dllama_proto.enums",
    "dllama_proto.events",
    "dllama_proto.floats",
    "dllama_proto.limits",
    "dllama_proto.messages",
    "dllama_proto.names",
    "dllama_proto.sync_plan",
    "dllama_proto.verify",
    "dllama_ops.kernel",
)

#: What uses a name of the package, and whether that loads the parser.
_USES = {"NetConfig": False, "n_bytes": False, "RemoteProtocolError": False, "decode": True, "encode": True}

_MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(dllama_proto.__path__, "dllama_proto.")
    if not info.name.endswith("__main__")
]


@pytest.mark.slow
def test_what_only_names_things_loads_no_parser() -> None:
    program = f"import sys, {', '.join(_LIGHT)}; print('construct' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


@pytest.mark.slow
def test_a_connection_loads_the_parser() -> None:
    """Or the test above would pass whatever happens."""
    program = "import sys, dllama_proto.connection; print('construct' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "True\n"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loads_parser"), _USES.items())
def test_a_name_of_the_package_loads_the_parser_only_if_it_parses(name: str, loads_parser: bool) -> None:
    program = f"import sys, dllama_proto; dllama_proto.{name}; print('construct' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == f"{loads_parser}\n"


@pytest.mark.parametrize("module", [dllama_proto, *_MODULES], ids=lambda module: module.__name__)
def test_public_names_are_listed_sorted_and_there(module: ModuleType) -> None:
    names = module.__all__
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name)


def test_the_package_re_exports_its_light_modules_and_the_codec() -> None:
    parts = ("codec", "enums", "errors", "floats", "messages")
    names = [name for part in parts for name in importlib.import_module(f"dllama_proto.{part}").__all__]
    assert sorted(names) == dllama_proto.__all__


@pytest.mark.parametrize("module", _MODULES, ids=lambda module: module.__name__)
def test_what_a_module_defines_for_others_is_listed(module: ModuleType) -> None:
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }
    assert defined <= set(module.__all__)
