"""What holds of every package: light imports, sorted and true ``__all__``, types that travel along.

Whose sockets are, who prints, and who writes JSON. Which package may import which is checked by import-linter
(``make lint``).
"""

from __future__ import annotations

import ast
import os
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
    # Measuring coverage loads modules of its own into every process.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
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
        (
            "dllama_proto.testing",
            {"socket", "selectors", "asyncio", "threading", "dllama_ops", "dllama_worker"},
        ),
        ("dllama_worker", {"numpy", "construct", "pluggy", "dllama_worker.root", "dllama_worker.worker"}),
        ("dllama_proto.connection", {"socket", "selectors", "asyncio", "dllama_ops", "dllama_worker"}),
        ("dllama_worker.__main__", {"numpy", "construct", "pluggy"}),
        ("dllama_worker.worker.cli", {"numpy", "construct", "pluggy"}),
        ("dllama_worker.doctor.cli", {"numpy", "construct", "pluggy"}),
        ("dllama_worker.root.cli", {"numpy", "construct", "pluggy"}),
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


# Sockets ---------------------------------------------------------------------------------------------------

#: The modules that know sockets, and what for. A connected socket is handed over to the transport at once.
KNOW_SOCKETS = {
    "dllama_worker.node.transport": "every connection between nodes",
    "dllama_worker.node.socket_options": "their options, for the transport",
    "dllama_worker.node.tls_socket": "TLS on them, for the transport",
    "dllama_worker.worker.tls_acceptor": "shakes hands before it hands over",
    "dllama_worker.tunnel.proxy": "passes on what it does not understand",
    "dllama_worker.worker.listener": "listens and accepts",
    "dllama_worker.worker.mesh": "dials",
    "dllama_worker.root.dial": "dials",
    "dllama_worker.worker.resolver": "asks for addresses",
    "dllama_worker.worker.wakeup": "wakes another thread",
    "dllama_worker.doctor.network_checks": "tries whether one can listen or dial",
    "dllama_worker.monitoring.server": "listens for HTTP",
    "dllama_worker.monitoring.request_loop": "speaks HTTP with many at a time",
    "dllama_worker.tap.proxy": "passes on what it does not understand",
}

#: Those that may do more than make a socket and hand it over.
USE_SOCKETS = {
    "dllama_worker.node.transport",
    "dllama_worker.node.socket_options",
    "dllama_worker.node.tls_socket",
    "dllama_worker.tunnel.proxy",
    "dllama_worker.worker.tls_acceptor",
    "dllama_worker.worker.wakeup",
    "dllama_worker.monitoring.request_loop",
    "dllama_worker.tap.proxy",
}

#: Methods of sockets, and of nothing else here.
ONLY_OF_SOCKETS = {
    "recv",
    "recv_into",
    "recvmsg",
    "recvmsg_into",
    "sendall",
    "sendmsg",
    "sendto",
    "setsockopt",
}

#: Methods of sockets that links and channels have as well: these count where the receiver is called a socket.
ALSO_OF_SOCKETS = {"send", "settimeout", "shutdown"}


def imports_socket(source: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Import) and any(alias.name == "socket" for alias in node.names)
        for node in ast.walk(source)
    )


def uses_of_sockets(source: ast.Module) -> set[str]:
    """What is done with sockets: their methods, by name, and every look at an attribute ``sock``."""
    found = set()
    for node in ast.walk(source):
        if not isinstance(node, ast.Attribute):
            continue
        is_socket = "sock" in ast.unparse(node.value).rpartition(".")[2]
        if node.attr in ("sock", "_sock", *ONLY_OF_SOCKETS) or (node.attr in ALSO_OF_SOCKETS and is_socket):
            found.add(node.attr)
    return found


def worker_modules() -> list[str]:
    return [name for name in modules() if name.startswith("dllama_worker")]


def test_few_modules_know_sockets() -> None:
    assert {name for name in worker_modules() if imports_socket(source_of(name))} == set(KNOW_SOCKETS)


@pytest.mark.parametrize("module", [name for name in worker_modules() if name not in USE_SOCKETS])
def test_a_connected_socket_is_the_transports_alone(module: str) -> None:
    assert uses_of_sockets(source_of(module)) == set()


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("link.sock", {"sock"}),
        ("caller._sock.close()", {"_sock"}),
        ("x.recv_into(view)", {"recv_into"}),
        ("sock.send(data)", {"send"}),
        ("self._socket.shutdown(2)", {"shutdown"}),
        ("self._channel.link.send(data)", set()),
        ("link.shutdown()", set()),
    ],
)
def test_what_counts_as_a_use_of_a_socket(text: str, used: set[str]) -> None:
    assert uses_of_sockets(ast.parse(text)) == used


# Printing --------------------------------------------------------------------------------------------------

#: The one module of these packages that prints. ``dllama_ops`` prints its own tables, escaped as these are.
PRINTS = "dllama_proto.terminal"
PRINTING_PACKAGES = ("dllama_proto", "dllama_worker")

#: What may be asked of a standard stream where nothing is written to it.
ASKED_OF_STREAMS = {"encoding", "fileno", "flush", "isatty"}
WRITERS = {"write", "writelines"}


def is_stream(node: ast.AST) -> bool:
    """Whether an expression is standard output or standard error, in Python's words."""
    return ast.unparse(node).removesuffix(".buffer").removesuffix("__") in {
        f"{module}{dunder}{name}"
        for module in ("", "sys.")
        for dunder in ("", "__")
        for name in ("stdout", "stderr")
    }


def ways_of_printing(source: ast.Module) -> set[str]:
    """What a module does that prints, or that could: in words, so that a failure says what to mend.

    A standard stream may be passed to somebody else, who then prints; its own methods may not be used, nor those
    of a variable that has it.
    """
    found = set()
    streams = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Assign) and any(map(is_stream, ast.walk(node.value))):
            streams |= {ast.unparse(target) for target in node.targets}
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "rich"}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in imported if name.startswith(("rich.", "sys.std"))}
        elif isinstance(node, ast.Name) and node.id == "print":
            found.add("print")
        elif isinstance(node, ast.Attribute):
            standard = is_stream(node.value) and not is_stream(node) and node.attr not in ASKED_OF_STREAMS
            if (
                standard
                or (node.attr in WRITERS and ast.unparse(node.value) in streams)
                or ast.unparse(node) in ("os.write", "traceback.print_exc", "traceback.print_exception")
            ):
                found.add(ast.unparse(node))
    return found


def printing_modules() -> list[str]:
    names = [*modules(), *(f"{package}.__main__" for package in PACKAGES)]
    return [name for name in names if name.startswith(PRINTING_PACKAGES)]


@pytest.mark.parametrize("module", printing_modules())
def test_one_module_prints(module: str) -> None:
    assert bool(ways_of_printing(source_of(module))) == (module == PRINTS)


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("print(1)", {"print"}),
        ("show = print", {"print"}),
        ("sys.stdout.write(text)", {"sys.stdout.write"}),
        ("sys.stderr.buffer.write(data)", {"sys.stderr.buffer.write"}),
        ("sys.__stderr__.writelines(lines)", {"sys.__stderr__.writelines"}),
        ("out = sys.stdout if out is None else out\nout.write(text)", {"out.write"}),
        ("from sys import stderr", {"sys.stderr"}),
        ("import rich.console", {"rich.console"}),
        ("def f():\n    from rich import progress", {"rich.progress"}),
        ("from rich.table import Table", {"rich.table.Table"}),
        ("os.write(2, data)", {"os.write"}),
        ("traceback.print_exc()", {"traceback.print_exc"}),
        ("print_line(text, sys.stderr)", set()),
        ("sys.stdout.flush()\nsys.stderr.isatty()", set()),
        ("with path.open('w') as file:\n    file.write(text)", set()),
    ],
)
def test_what_counts_as_printing(text: str, ways: set[str]) -> None:
    assert ways_of_printing(ast.parse(text)) == ways


# JSON ------------------------------------------------------------------------------------------------------

#: The modules that write JSON text themselves.
WRITE_JSON = {
    "dllama_proto.json_text": "for all others",
    "dllama_worker.root.chat.template_process": "what it asks the process of the template",
    "dllama_worker.root.chat.template_program": "what that answers, and a filter, whose text is for a model",
}


def writes_json(source: ast.Module) -> bool:
    """Whether ``json.dump``, ``json.dumps`` or an encoder is named, however ``json`` was imported."""
    modules = {"json"}
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "json" and alias.asname}
    writers = {"dump", "dumps", "JSONEncoder"}
    return any(
        (
            isinstance(node, ast.Attribute)
            and node.attr in writers
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module in ("json", "json.encoder")
            and any(alias.name in writers | {"*"} for alias in node.names)
        )
        for node in ast.walk(source)
    )


def test_json_text_has_one_writer() -> None:
    names = {
        name for name in [*modules(), *(f"{p}.__main__" for p in PACKAGES)] if writes_json(source_of(name))
    }
    assert names == set(WRITE_JSON)


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("import json\nprint(json.dumps(1))", True),
        ("import json as j\nj.dump(1, file)", True),
        ("from json import dumps as to_text", True),
        ("import json\njson.loads(text)", False),
        ("pickle.dumps(1)", False),
    ],
)
def test_what_counts_as_writing_json(text: str, writes: bool) -> None:
    assert writes_json(ast.parse(text)) == writes


# Private names ---------------------------------------------------------------------------------------------


def private_imports(module: str) -> list[str]:
    """What a module imports that is private to a package which it is not in: dotted names with a ``_`` part."""
    found = []
    for node in ast.walk(source_of(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [name for name in names if name.startswith(PACKAGES) and not visible(name, module)]
    return found


def visible(name: str, module: str) -> bool:
    """Whether a dotted name may be used in a module: what is private belongs to the folder that holds it."""
    parts = name.split(".")
    private = next((i for i, part in enumerate(parts) if part.startswith("_") and part[1:2] != "_"), None)
    if private is None:
        return True
    holder = ROOT.joinpath(*parts[:private])
    folder = parts[:private] if holder.is_dir() else parts[: private - 1]
    return module.split(".")[: len(folder)] == folder


@pytest.mark.parametrize("module", modules())
def test_private_names_stay_in_their_package(module: str) -> None:
    assert private_imports(module) == []


def test_a_private_name_is_seen_from_its_folder_only() -> None:
    assert visible("dllama_proto._phases.Phase", "dllama_proto.dissect.undecided")
    assert not visible("dllama_proto._phases.Phase", "dllama_worker.tap.peers")
    assert not visible("dllama_proto.schemas._size.SIZE_3D", "dllama_proto.verify")
    assert not visible("dllama_worker.node.memory._SHARE_OF_FREE", "dllama_worker.worker.session")
    assert visible("dllama_worker.node.memory._SHARE_OF_FREE", "dllama_worker.node.node")


# Names of classes ------------------------------------------------------------------------------------------


def test_a_class_name_means_one_thing() -> None:
    """In all packages together; ``_Thing`` beside ``Thing`` would be twins, too."""
    homes: dict[str, list[str]] = {}
    for module in modules():
        for node in source_of(module).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.lstrip("_"), []).append(module)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}
