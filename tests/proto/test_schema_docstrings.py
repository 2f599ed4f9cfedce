"""Docstrings of schemas: the example in bytes is true, the size rule holds, writers and readers are named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import IntEnum
from importlib.util import find_spec
from io import BytesIO
from types import ModuleType
from typing import Any

import construct
import pytest

from dllama_proto.enums import OpCode
from dllama_proto.messages import Greeting, NetConfig, NodeConfig, OpConfig
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.capture_file import PCAPNG_BLOCKS
from dllama_proto.schemas.node_config import OP_PARAMS
from dllama_proto.schemas.wire import F32, Record
from tests.helpers.captures import CASES, load
from tests.helpers.schema_examples import Example, Reading, docstrings, examples_of, public_schemas

PUBLIC = public_schemas()
EXAMPLES = [example for module, name in PUBLIC for example in examples_of(module, name)]

#: What the C++ program knows nothing of.
NOT_CPP = {
    "dllama_proto.schemas.capture_file",
    "dllama_proto.schemas.packet",
    "dllama_proto.schemas.refusal",
}

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.expression)


# They are there --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda part: getattr(part, "__name__", part))
def test_every_public_schema_has_an_example_and_a_size_rule(module: ModuleType, name: str) -> None:
    text = docstrings(module).get(name, "")
    examples = examples_of(module, name)
    assert examples
    # None is in another form, which would be passed over.
    assert len(examples) == len(re.findall("^Example", text, re.M)) == len(re.findall("^Size", text, re.M))


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda part: getattr(part, "__name__", part))
def test_every_public_schema_says_who_writes_and_who_reads_it(module: ModuleType, name: str) -> None:
    last = docstrings(module)[name].strip().rpartition("\n\n")[2].replace("\n", " ")
    if module.__name__ in NOT_CPP:
        assert re.fullmatch(r"Written by .+, read by :mod:`dllama_proto\.dissect\.\w+`.*\.", last)
        assert all(find_spec(named) for named in re.findall(":mod:`([^`]+)`", last))
    else:
        assert re.fullmatch(r"Written by ``[\w:]+``.*, read by ``[\w:]+``.*\(``[\w-]+\.cpp``\).*\.", last)


def test_every_message_is_among_the_public_schemas() -> None:
    public = [getattr(module, name) for module, name in PUBLIC]
    assert [schema for schema in MESSAGES.values() if schema not in public] == []


def test_every_block_of_a_capture_has_an_example() -> None:
    shown = [example.schema for example in EXAMPLES]
    assert [number for number, block in PCAPNG_BLOCKS["<"].items() if block not in shown] == []


# They are true ---------------------------------------------------------------------------------------


def is_value(text: str, value: Any, module: ModuleType) -> bool:
    """Whether the text behind a field's name is its value. Of raw bytes nothing is said: they stand there."""
    if isinstance(value, bytes) or value is None:
        return text == ""
    if isinstance(value, IntEnum):
        return text == value.name
    if isinstance(value, float):
        return F32.encode(float(text)) == F32.encode(value)
    if text.isidentifier() and not isinstance(value, bool):
        kinds = (
            kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, IntEnum)
        )
        return any(text in kind.__members__ and kind[text] == value for kind in kinds)
    return bool(ast.literal_eval(text) == value)


@every_example
def test_the_bytes_are_read_as_shown_and_built_again(example: Example) -> None:
    if isinstance(example.schema, bytes):
        assert example.data == example.schema
        return
    reading = example.read()
    assert sum(size for _, size, _ in reading.leaves) == len(example.data)
    leaves = iter(reading.leaves)
    for data, shown in example.lines:
        assert shown, "names of the fields in these bytes"
        found = [next(leaves) for _ in shown]
        assert [name for name, _ in shown] == [name for name, _, _ in found]
        assert len(data) == sum(size for _, size, _ in found)
        values = zip(shown, found, strict=True)
        assert [(n, v) for (n, text), (_, _, v) in values if not is_value(text, v, example.module)] == []
    assert list(leaves) == []
    assert example.schema.build(reading.value, **example.context) == example.data


@every_example
def test_the_size_rule_holds_for_the_example(example: Example) -> None:
    if isinstance(example.schema, bytes):
        assert int(example.size) == len(example.schema)
    else:
        assert example.size_of(example.read()) == len(example.data)


@every_example
def test_the_size_rule_is_a_number_where_the_size_is_fixed(example: Example) -> None:
    try:
        size = len(example.schema) if isinstance(example.schema, bytes) else example.schema.sizeof()
    except construct.SizeofError:
        assert not example.size.isdecimal()
    else:
        assert example.size == str(size)


def records_in(value: Any) -> Iterator[Any]:
    if is_dataclass(value):
        yield value
        for field in fields(value):
            yield from records_in(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from records_in(item)


def recorded(case: str) -> set[Any]:
    """Return the greetings and configs of a recorded session, with every record in them."""
    session = load(case)
    found: set[Any] = set()
    for node in session.workers:
        stream = BytesIO(session.data(0, node))
        for message, n_acks in ((Greeting, 2), (NetConfig, 1), (NodeConfig, 0)):
            found.update(records_in(MESSAGES[message].parse_stream(stream)))
            stream.seek(4 * n_acks, 1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_size_rules_hold_for_every_recorded_record(case: str) -> None:
    by_class = {each.schema.cls: each for each in EXAMPLES if isinstance(each.schema, Record)}
    records = recorded(case)
    assert {NetConfig, NodeConfig, OpConfig} <= {type(record) for record in records}
    for record in records:
        example = by_class[type(record)]
        data = example.schema.build(record)
        assert example.size_of(Reading(example.schema, data, {})) == len(data)


@pytest.mark.parametrize("code", OpCode)
def test_the_size_rule_of_the_choice_of_configs_holds_for_each(code: OpCode) -> None:
    [example] = [each for each in EXAMPLES if each.schema is OP_PARAMS]
    size = OP_PARAMS.cases[code].fixed_size
    assert example.size_of(Reading(OP_PARAMS, bytes(size), {"code": code})) == size
