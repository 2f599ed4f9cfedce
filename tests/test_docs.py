"""What the documentation says holds: names, links, and the programs in it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dllama_ops import (
    KernelKey,
    OpContext,
    OpsPluginManager,
    Tensor,
    build_kernel_table,
    compile_segment,
    reference,
)
from dllama_ops.kernel import BoundOp
from dllama_ops.params import NoParams
from dllama_ops.reference.specs import OPS as KERNEL_OPS
from dllama_ops.testing import check_kernel, random_case
from dllama_proto import events as connection_events
from dllama_proto.cli import main as proto_main
from dllama_proto.connection import NEED_DATA
from dllama_proto.dissect import events as dissect_events
from dllama_proto.enums import FloatType, OpCode, OpQuantType
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.messages import EmptyConfig
from dllama_proto.schemas._size import SIZE_3D
from dllama_proto.schemas.op_configs import OPS as WIRE_OPS
from dllama_proto.schemas.wire import Record, bare
from dllama_worker.monitoring.collector import make_registry
from dllama_worker.monitoring.messages import MessageCounts
from dllama_worker.monitoring.monitor import Monitor
from tests.helpers.captures import GOLDEN, capture_path
from tests.helpers.quoted_help import with_help
from tests.ops.plugins import install

ROOT = Path(__file__).parents[1]
PACKAGES = ("dllama_proto", "dllama_ops", "dllama_worker")
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SILU = KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32)


def page_id(page: Path) -> str:
    return page.name


def code_blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def block_with(page: Path, text: str) -> str:
    [block] = [block for block in code_blocks(page) if text in block]
    return block


def module_of(block: str, name: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(block, name, "exec"), module.__dict__)  # noqa: S102 # our own documentation
    return module


def plugin_manager(plugin: ModuleType) -> OpsPluginManager:
    manager = OpsPluginManager()
    manager.add("numpy", lambda: reference)
    manager.add(plugin.__name__, lambda: plugin)
    return manager


def silu_context(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> OpContext:
    """An op over one buffer of rows, in place as the wire has it."""
    rows, x = values.shape
    tensor = Tensor.over(FloatType.F32, values, z=1, y=rows, x=x)
    return OpContext(SILU, "block_act", 0, rows, 1, tensor, tensor, None, NoParams())


# The layout -----------------------------------------------------------------------------------------


def named_files() -> list[str]:
    return re.findall(r"^\| `(dllama_[^`]+)` \|", (ROOT / "docs/layout.md").read_text(), re.M)


def test_layout_names_every_module() -> None:
    modules = {
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    assert sorted(modules - set(named_files())) == []


def test_layout_names_nothing_else_and_nothing_twice() -> None:
    names = named_files()
    assert [name for name in names if not (ROOT / name).is_file()] == []
    assert sorted(set(names)) == sorted(names)


# Ops ------------------------------------------------------------------------------------------------


def config_fields(schema: Any, prefix: str = "") -> Iterator[str]:
    for subcon in schema.subcons:
        inner = bare(subcon)
        if isinstance(inner, Record) and inner is not SIZE_3D:
            yield from config_fields(inner)
        else:
            yield subcon.name


def op_rows() -> list[str]:
    """Return the rows of the table of ops, as the page has to have them."""
    return [
        f"| {spec.code.name} | `{spec.params.__name__}` | {'yes' if spec.weight_rows else ''} | "
        f"{', '.join(quant.name for quant in spec.reference)} |"
        for spec in KERNEL_OPS
    ]


def test_the_protocol_page_has_the_config_of_every_op() -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    assert ", ".join(f"{spec.code.value} {spec.code.name}" for spec in WIRE_OPS) in text
    rows = {
        name: (fields, size)
        for name, fields, size in re.findall(r"^\| (\w+) \| (.+) \| (\d+) \|$", text, re.M)
    }
    for spec in WIRE_OPS:
        if spec.config is EmptyConfig:
            continue
        fields, size = rows.pop(spec.code.name)
        named = [word for word in re.findall(r"\w+", fields) if word in set(config_fields(spec.schema))]
        assert named == list(config_fields(spec.schema)), spec.code.name
        assert int(size) == spec.schema.fixed_size
    assert not {code.name for code in OpCode} & set(rows)


def test_the_kernels_page_has_every_op_with_its_keys() -> None:
    text = (ROOT / "docs/kernels.md").read_text()
    start = text.index("| op | `params` | weight |")
    assert text[start:].partition("\n\n")[0].splitlines()[2:] == op_rows()


# Events ---------------------------------------------------------------------------------------------


def fields_on_page() -> dict[str, list[tuple[str, str]]]:
    """The classes of the page of events, each with the fields and types of its table."""
    text = (ROOT / "docs/events.md").read_text()
    sections = re.split(r"^### `(\w+)`$", text, flags=re.M)[1:]
    return {
        name: [
            (field, kind.replace("\\|", "|"))
            for field, kind in re.findall(
                r"^\| `(\w+)` \| `([^`]+)` \|", section.partition("\n## ")[0], re.M
            )
        ]
        for name, section in zip(sections[::2], sections[1::2], strict=True)
    }


def fields_of(record: type[Any]) -> list[tuple[str, str]]:
    """The fields and properties that a class adds to those of its base, with their types as written."""
    inherited = {field.name for base in record.__mro__[1:] if is_dataclass(base) for field in fields(base)}
    own = [(field.name, str(field.type)) for field in fields(record) if field.name not in inherited]
    properties = [
        (name, str(value.fget.__annotations__["return"]))
        for name, value in vars(record).items()
        if isinstance(value, property)
    ]
    return own + properties


def event_classes() -> dict[str, type[Any]]:
    """Every class of events, of captures and of connections, and what they refer to."""
    return {
        name: value
        for module in (dissect_events, connection_events)
        for name in module.__all__
        if is_dataclass(value := getattr(module, name)) and isinstance(value, type)
    }


def test_the_events_page_has_every_event_with_its_fields_and_types() -> None:
    expected = {name: fields_of(record) for name, record in event_classes().items()}
    assert set(expected) >= {"WireEvent", "SliceEvent", "Stream", "SliceData", "Closed"}
    assert fields_on_page() == expected


def test_the_events_page_names_every_kind() -> None:
    text = (ROOT / "docs/events.md").read_text()
    assert [
        kind.name for kind in dissect_events.Kind if not re.search(rf"`(Kind\.)?{kind.name}`", text)
    ] == []


def test_the_program_of_the_events_page_runs(
    files_of_the_dissect_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module_of(block_with(ROOT / "docs/events.md", "event.place.layer == 0"), "events_page")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert all(len(line.split()) == 4 for line in lines)


# Lines ----------------------------------------------------------------------------------------------


def prose(page: Path) -> list[str]:
    """A page's lines without tables and code, and links by their text alone."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    lines = re.sub(r"\]\([^)]*\)", "]", text).splitlines()
    return [line for line in lines if not line.startswith(("|", "    "))]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=page_id)
def test_lines_of_prose_are_short_enough_to_compare(page: Path) -> None:
    assert [line for line in prose(page) if len(line) > 120] == []


# Links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    relative = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


def test_readme_links_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


def test_the_site_has_a_place_for_every_page() -> None:
    """Beside those, ``docs/_site/pages.py`` adds the reference by itself; ``make docs`` checks the rest."""
    nav = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(set(nav)) == sorted(nav)
    assert [page.name for page in PAGES[1:] if page.name not in nav] == []


# Help texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES[1:], ids=page_id)
def test_quoted_help_is_what_the_commands_print(page: Path) -> None:
    """Otherwise: python -m tests.helpers.quoted_help"""
    text = page.read_text()
    assert with_help(text) == text


def test_the_operation_page_quotes_both_commands() -> None:
    text = (ROOT / "docs/operation.md").read_text()
    stale = re.sub(r"  --metrics-port.*\n", "", text)
    assert stale != text
    assert with_help(stale) == text
    assert re.findall("<!-- help: (.+) -->", text) == ["dllama-worker", "dllama-worker doctor"]


def test_the_operation_page_names_every_metric() -> None:
    text = (ROOT / "docs/operation.md").read_text()
    registry = make_registry(Monitor(), MessageCounts())
    names = {
        metric.name + ("_total" if metric.type == "counter" else "_info" if metric.type == "info" else "")
        for metric in registry.collect()
        if metric.name.startswith("dllama_")
    }
    assert set(re.findall(r"^\| `(dllama_worker_\w+)", text, re.M)) == names


# Programs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_compile(page: Path) -> None:
    for number, block in enumerate(code_blocks(page)):
        compile(block, f"{page.name}, block {number}", "exec")


def test_the_readme_has_a_plugin_of_ten_lines_and_its_entry_point() -> None:
    block = block_with(ROOT / "README.md", "dllama_register_kernels")
    code = [line for line in block.splitlines() if line.strip() and not re.match(r"#|import|from", line)]
    assert len(code) <= 10
    [toml] = code_blocks(ROOT / "README.md", "toml")
    assert "[project.entry-points.dllama_ops]" in toml


def test_the_plugin_of_the_readme_is_chosen_and_right() -> None:
    plugin = module_of(block_with(ROOT / "README.md", "dllama_register_kernels"), "my_kernels")
    table = build_kernel_table(plugin_manager(plugin))
    assert table.failures == ()
    assert table.get(SILU).plugin == "my_kernels"
    values = np.array([[-3, -0.5, 0, 2], [1, 2, 3, 4]], np.float32)
    before = values.copy()
    kernel = table.get(SILU).factory(silu_context(values))
    kernel.finish_weight()
    kernel.forward(1)
    exact = before[0].astype(np.float64) / (1 + np.exp(-before[0].astype(np.float64)))
    np.testing.assert_allclose(values[0], exact, rtol=1e-6)
    assert (values[1] == before[1]).all()
    assert all(check_kernel(table.get(SILU).factory, random_case(SILU, seed)) == [] for seed in range(5))


@pytest.mark.slow
def test_the_plugin_of_the_kernel_page_passes_its_own_test(tmp_path: Path) -> None:
    page = ROOT / "docs/kernels.md"
    plugin = block_with(page, "class FastSilu")
    (tmp_path / "fast_silu.py").write_text(plugin)
    (tmp_path / "run.py").write_text(block_with(page, "def test_fast_silu") + "\ntest_fast_silu()\n")
    subprocess.run([sys.executable, "-W", "error", "run.py"], cwd=tmp_path, check=True)
    table = build_kernel_table(plugin_manager(module_of(plugin, "fast_silu")))
    assert table.get(SILU).plugin == "fast_silu"


@pytest.mark.slow
def test_the_kernel_page_goes_from_nothing_to_a_checked_plugin(tmp_path: Path) -> None:
    """Its two files make an installed plugin, and its commands print what the page says they print."""
    page = ROOT / "docs/kernels.md"
    (project,) = (tomllib.loads(block) for block in code_blocks(page, "toml"))
    ((name, module),) = project["project"]["entry-points"]["dllama_ops"].items()
    install(tmp_path, name, module, block_with(page, "class FastSilu"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "dllama_ops", "check", name]
    assert f"    dllama-ops check {name}\n" in page.read_text()
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    printed = [line.rstrip() for line in run.stdout.splitlines() if line.strip()]
    shown = [line.strip() for line in page.read_text().splitlines()]
    assert [line for line in printed if line not in shown] == []


@pytest.mark.slow
def test_the_compiler_of_the_kernel_page_passes_its_own_test(tmp_path: Path) -> None:
    page = ROOT / "docs/kernels.md"
    (tmp_path / "in_one_call.py").write_text(block_with(page, "@hookimpl\ndef dllama_compile_segment"))
    (tmp_path / "run.py").write_text(block_with(page, "def test_in_one_call") + "\ntest_in_one_call()\n")
    subprocess.run([sys.executable, "-W", "error", "run.py"], cwd=tmp_path, check=True)


def test_the_compiler_of_the_kernel_page_takes_a_segment() -> None:
    plugin = module_of(block_with(ROOT / "docs/kernels.md", "def dllama_compile_segment"), "in_one_call")
    table = build_kernel_table(plugin_manager(plugin))
    values = np.ones((2, 4), np.float32)
    context = silu_context(values)
    op = BoundOp(context, table.get(SILU).factory(context))
    compiled = partial(compile_segment, table.compilers, n_threads=1)
    assert compiled([op]).plugin is None
    choice = compiled([op, op])
    assert (choice.plugin, choice.failures) == ("in_one_call", ())
    choice.segment.forward(1)
    once = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(values[0], once / (1 + np.exp(-once)), rtol=1e-4)
    assert (values[1] == 1).all()


@pytest.fixture
def files_of_the_dissect_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "session.pcap").write_bytes(capture_path("tiny-q40-2n").read_bytes())
    for name, model in (("tiny.m", "tiny-q40.m"), ("tiny.t", "tiny.t")):
        (tmp_path / name).write_bytes((GOLDEN / "models" / model).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [line for block in code_blocks(ROOT / "docs/dissect.md", "sh") for line in block.splitlines()],
)
def test_the_commands_of_the_dissect_page_run(
    command: str, files_of_the_dissect_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = shlex.split(command)
    assert program == "dllama-proto"
    assert proto_main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out or "-o" in arguments
    assert captured.err == ""


def test_the_program_of_the_dissect_page_counts_bytes(files_of_the_dissect_page: Path) -> None:
    program = module_of(block_with(ROOT / "docs/dissect.md", "bytes_by_layer"), "layers")
    assert set(program.bytes_by_layer) == {0, 1}
    assert len(set(program.bytes_by_layer.values())) == 1


def test_the_program_of_the_protocol_page_tells_a_root_from_a_stranger() -> None:
    program = module_of(block_with(ROOT / "docs/protocol.md", "def first_event"), "first_event")
    assert program.first_event(b"") is None
    greeting = program.first_event(bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    assert (greeting.n_sockets, greeting.worker_index) == (1, 0)
    assert greeting is not NEED_DATA
    with pytest.raises(RemoteProtocolError, match="n_sockets"):
        program.first_event(b"GET / HTTP/1.1\r\n\r\n")
