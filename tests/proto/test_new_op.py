"""An op that is registered at run time: read, verified, shown and exported as those that were always there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from dllama_proto.cli import main
from dllama_proto.connection import Phase, Role
from dllama_proto.dissect import Endpoint
from dllama_proto.dissect.recording import RecordedConnection, file_header
from dllama_proto.enums import FloatType, OpCode
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.messages import MulConfig, NodeConfig, Size3D
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.layout import offset_of
from dllama_proto.schemas.op_configs import OP_CONFIGS, OPS
from dllama_proto.schemas.op_spec import OpConfigSpec
from dllama_proto.schemas.wire import build_exactly
from dllama_proto.show.diff import diff_captures
from dllama_proto.show.json_form import events_schema
from dllama_proto.show.wireshark import make_dissector
from dllama_proto.verify import Fault, verify_node_config
from tests.helpers.new_op import PICK, PickConfig, registered, wire_spec
from tests.proto import configs
from tests.proto.stages import SCRIPT, Pair, put

_OP = "segments[1].ops[0]"

#: The small cluster's config with PICK as its first op, with an index buffer of whatever size.
_NODE = put(
    put(put(configs.NODE, f"{_OP}.code", PICK), f"{_OP}.name", "block_pick"),
    f"{_OP}.config",
    PickConfig(0.5, 1, 0xDEADBEEF),
)


@pytest.fixture
def pick() -> Iterator[None]:
    with registered():
        yield


def _bytes(node: NodeConfig) -> bytes:
    return build_exactly(MESSAGES[NodeConfig], node, "NodeConfig")


def _faults(node: NodeConfig) -> list[Fault]:
    return list(verify_node_config(node, configs.NET, DEFAULT_LIMITS))


def _received(data: bytes) -> object:
    worker = Pair().advance_to(Phase.NODE_CONFIG).worker
    worker.receive_data(data)
    return worker.next_event()


# On the wire ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pick")
def test_it_is_read_as_it_was_written() -> None:
    assert _received(_bytes(_NODE)) == _NODE


def test_unregistered_it_is_a_number_that_names_nothing() -> None:
    with registered():
        data = _bytes(_NODE)
    with pytest.raises(RemoteProtocolError) as caught:
        _received(data)
    assert caught.value.path == f"NodeConfig.{_OP}.code"
    assert caught.value.expected.endswith("15 (SOFTMAX), 16 (MOE_GATE)")
    assert caught.value.got == "64"


def _with_u32(field: str, number: int) -> bytes:
    """Return the config's bytes with another number in a field that the schema would not build."""
    data = bytearray(_bytes(_NODE))
    at = offset_of(MESSAGES[NodeConfig], _NODE, "NodeConfig", f"NodeConfig.{field}")
    assert at is not None
    data[at : at + 4] = number.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.usefixtures("pick")
def test_another_number_is_told_what_there_is_now() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        _received(_with_u32(f"{_OP}.code", 65))
    assert caught.value.expected.endswith("16 (MOE_GATE), 64 (PICK)")


@pytest.mark.usefixtures("pick")
def test_its_size_is_that_of_its_schema() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        _received(_with_u32(f"{_OP}.config_size", 13))
    assert (caught.value.path, caught.value.expected) == (f"NodeConfig.{_OP}.config_size", "12 for PICK")


# Verified ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pick")
def test_its_buffer_must_be_there() -> None:
    [fault] = _faults(put(_NODE, f"{_OP}.config.indexes_buffer", 9))
    assert fault == Fault(
        f"NodeConfig.{_OP}.config.indexes_buffer", "less than 2, the number of buffers", "9"
    )


@pytest.mark.usefixtures("pick")
def test_a_field_that_means_nothing_is_not_looked_at() -> None:
    node = put(put(_NODE, f"{_OP}.config.indexes_buffer", 9), f"{_OP}.config.factor", 0.0)
    assert _faults(node) == []


@pytest.mark.usefixtures("pick")
def test_its_own_check_is_asked_once_its_indexes_are_right() -> None:
    node = put(_NODE, f"{_OP}.config.factor", float("inf"))
    assert [fault.path for fault in _faults(node)] == [f"NodeConfig.{_OP}.config.factor"]
    node = put(node, f"{_OP}.config.indexes_buffer", 9)
    assert [fault.path for fault in _faults(node)] == [f"NodeConfig.{_OP}.config.indexes_buffer"]


@pytest.mark.usefixtures("pick")
def test_the_config_of_another_op_is_a_fault() -> None:
    [fault] = _faults(put(_NODE, f"{_OP}.config", MulConfig(0)))
    assert fault == Fault(f"NodeConfig.{_OP}.config", "PickConfig for PICK", "MulConfig")


def test_a_code_without_a_spec_is_a_fault() -> None:
    [fault] = _faults(_NODE)
    assert fault.path == f"NodeConfig.{_OP}.code"


# Shown ------------------------------------------------------------------------------------------------


@pytest.fixture
def capture(tmp_path: Path, pick: None) -> Path:
    return _recorded(_NODE, tmp_path / "pick.pcapng")


def _recorded(node: NodeConfig, path: Path) -> Path:
    """Record the small cluster's session up to the end of a node config."""
    # The workers' addresses in the greeting would be other connections.
    connection = RecordedConnection(Endpoint("10.0.0.9", 4000), Endpoint("10.0.0.2", 9990))
    parts, pair = [file_header(), connection.opened(1)], Pair()
    for time, (role, event) in enumerate(SCRIPT, 2):
        said = node if isinstance(event, NodeConfig) else event
        data = bytes(pair.ends[role].send(said))
        other = pair.ends[Role.WORKER if role is Role.ROOT else Role.ROOT]
        other.receive_data(data)
        assert other.next_event() == said
        parts.append(connection.data(time, data, from_dialler=role is Role.ROOT))
        if said is node:
            break
    path.write_bytes(b"".join(parts))
    return path


def test_the_tree_has_its_name_and_the_names_of_its_buffers(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dissect", "-v", "--kind", "node_config", str(capture)]) == 0
    out = capsys.readouterr().out
    assert "PICK " in out
    assert "block_pick 0" in out
    assert "config: factor 0.5, indexes_buffer 1 (k), spare 3735928559" in out


def test_json_has_it_as_the_published_form_says(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dissect", "--json", "--kind", "node_config", str(capture)]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    jsonschema.Draft202012Validator(events_schema()).validate(first)
    op = first["message"]["segments"][1]["ops"][0]
    assert op["code"] == "PICK"
    assert op["config"] == {"factor": 0.5, "indexes_buffer": 1, "spare": 0xDEADBEEF}


def test_bytes_are_shown_by_field(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dissect", "-x", "--kind", "node_config", str(capture)]) == 0
    out = capsys.readouterr().out
    assert f"{_OP}.code = PICK (64)" in out
    assert f"{_OP}.config.factor = 0.5" in out


def test_undefined_memory_is_no_difference(capture: Path, tmp_path: Path) -> None:
    other = _recorded(put(_NODE, f"{_OP}.config.spare", 7), tmp_path / "other.pcapng")
    assert diff_captures(str(capture), str(other), 0.0).messages == ()
    differs = _recorded(put(_NODE, f"{_OP}.config.factor", 0.25), tmp_path / "differs.pcapng")
    assert len(diff_captures(str(capture), str(differs), 0.0).messages) == 1


def test_wireshark_knows_it_while_it_is_registered() -> None:
    with registered():
        script = make_dissector()
    assert '[64] = "PICK"' in script
    assert '[64] = "pick"' in script
    assert 'F["pick.indexes_buffer"] = ProtoField.uint32("dllama.pick.indexes_buffer"' in script
    assert '["pick"] = {' in script
    assert "PICK" not in make_dissector()


# The registry -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pick")
def test_a_code_has_one_spec() -> None:
    with pytest.raises(ValueError, match="op code 64 is registered as PICK with PickConfig: PICK with"):
        OPS.register(wire_spec())
    with pytest.raises(ValueError, match="MUL with MulConfig: MUL with ScaleConfig needs another code"):
        OPS.register(OpConfigSpec(OpCode.MUL, OP_CONFIGS[OpCode.SCALE]))
    assert OPS.get(OpCode.MUL).config is MulConfig


def test_what_is_removed_is_gone_from_every_view() -> None:
    before = list(OPS)
    with registered():
        assert OPS.get(PICK) is list(OPS)[-1]
        assert (OP_CONFIGS[PICK].cls, OPS.codes[64]) == (PickConfig, PICK)
    assert list(OPS) == before
    assert PICK not in OPS
    assert PICK not in OP_CONFIGS
    assert 64 not in OPS.codes
    assert len(OPS) == len(before) == len(OpCode)
    with pytest.raises(KeyError):
        OPS.get(PICK)


def test_a_defined_code_is_one_object_and_no_member() -> None:
    assert OpCode.define(64, "PICK") is PICK is OpCode(64)
    assert (PICK.name, PICK.value, repr(PICK)) == ("PICK", 64, "<OpCode.PICK: 64>")
    assert isinstance(PICK, OpCode)
    assert PICK not in list(OpCode)
    assert OpCode.define(10, "MUL") is OpCode.MUL


@pytest.mark.parametrize(
    ("number", "name", "message"),
    [
        (64, "CHOOSE", "op code 64 is PICK, so 64 cannot be CHOOSE"),
        (65, "PICK", "op code 64 is PICK, so 65 cannot be PICK"),
        (10, "PICK2", "op code 10 is MUL, so 10 cannot be PICK2"),
        (66, "MUL", "op code 10 is MUL, so 66 cannot be MUL"),
        (-1, "NO", "expected a number of 0 to"),
        (2**31, "NO", "expected a number of 0 to"),
        (67, "no", "and a name such as MERGE_ADD, got 67 and 'no'"),
        (67, "", "and a name such as"),
    ],
)
def test_a_number_has_one_name(number: int, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpCode.define(number, name)
    with pytest.raises(ValueError, match="is not a valid OpCode"):
        OpCode(2**31 + 1)


@pytest.mark.usefixtures("pick")
def test_sizes_within_a_config_are_found() -> None:
    config = configs.PARAMS[OpCode.ROPE]
    [(path, size)] = OPS.get(OpCode.ROPE).sizes(config)
    assert (path, size) == ("slice.cache_size", Size3D.of(FloatType.F32, y=100, x=48))
    assert OPS.get(PICK).sizes(PickConfig(1.0, 0, 0)) == []


def test_defined_fields_stay() -> None:
    spec = wire_spec()
    config = PickConfig(1.5, 3, 99)
    assert spec.defined(config) == replace(config, spare=0)
