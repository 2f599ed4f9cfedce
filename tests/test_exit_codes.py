"""Which error is whose: every class of the three packages, and Python's, as the page of errors has them."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from dllama_ops import native
from dllama_ops.errors import KernelDataError, OpsError
from dllama_ops.scope import ForwardStopped
from dllama_proto.errors import LocalProtocolError, ProtocolError
from dllama_proto.exit_codes import CommandError, ExitCode, error_text, exit_code, run_command
from dllama_worker.errors import MachineError, NodeError
from dllama_worker.node.tls import NotTls
from dllama_worker.report import Report
from dllama_worker.root import run
from dllama_worker.root.options import RootOptions
from dllama_worker.worker.link_watch import Stopped
from tests.helpers.reports import Collected
from tests.test_architecture import PACKAGES, modules

PAGE = (Path(__file__).parents[1] / "docs/errors.md").read_text()

#: Never raised themselves.
BASES: set[type[ProtocolError | OpsError | NodeError]] = {ProtocolError, OpsError, NodeError}


def all_errors() -> set[type[BaseException]]:
    """Every exception class of ours, once all modules are there."""
    for module in modules():
        if not (native.unavailable and module.startswith("dllama_ops.native.")):
            import_module(module)

    def below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
        for child in type.__subclasses__(kind):
            yield child
            yield from below(child)

    return {kind for kind in below(BaseException) if kind.__module__.partition(".")[0] in PACKAGES}


def public_errors() -> set[type[BaseException]]:
    return {kind for kind in all_errors() if not kind.__name__.startswith("_")}


def rows() -> dict[str, tuple[str, int]]:
    """The table of the page: package and exit code of each error."""
    found = re.findall(r"^\| `(\w+)` \| `(dllama_\w+)` \| [^|]+ \| (\d+) \| ", PAGE, re.M)
    assert len({name for name, _, _ in found}) == len(found)
    return {name: (package, int(code)) for name, package, code in found}


# Our own --------------------------------------------------------------------------------------------------


def test_the_page_has_every_error_with_its_package_and_exit_code() -> None:
    [caught_inside] = re.findall(r"^Four errors are caught inside, (.+?)\n\n", PAGE, re.M | re.S)
    ours = {
        kind.__name__: (kind.__module__.partition(".")[0], int(exit_code(kind.__new__(kind))))
        for kind in public_errors() - BASES
        if f"`{kind.__name__}` (" not in caught_inside
    }
    assert rows() == ours
    assert all(
        f"`{kind.__name__}` is the base" in PAGE or f"`{kind.__name__}` of" in PAGE for kind in BASES
    )


@pytest.mark.parametrize("kind", sorted(public_errors() - BASES, key=str))
def test_every_error_states_its_exit_code_itself(kind: type[BaseException]) -> None:
    if kind.__name__ == "UnknownCodeError":  # construct's, and never seen outside of the schemas
        return
    assert isinstance(vars(kind).get("exit_code"), ExitCode)


def test_what_is_caught_inside_is_no_failure_or_a_bug() -> None:
    assert exit_code(Stopped()) is ExitCode.DONE
    assert exit_code(ForwardStopped()) is ExitCode.DONE
    assert exit_code(NotTls()) is ExitCode.PEER
    names = {kind.__name__ for kind in public_errors() - BASES} - set(rows())
    assert names == {"ForwardStopped", "NotTls", "Stopped", "UnknownCodeError"}


def test_a_base_that_says_nothing_is_a_bug() -> None:
    assert {kind.exit_code for kind in BASES} == {ExitCode.BUG}


def test_the_page_has_every_exit_code() -> None:
    codes = PAGE.partition("## Exit codes")[2]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", codes, re.M)] == sorted(ExitCode)


# Python's -------------------------------------------------------------------------------------------------


def python_rows() -> dict[str, int]:
    start = PAGE.index("Errors of Python itself")
    found = re.findall(
        r"^\| (`\w+Error`.*?|`KeyboardInterrupt`|any other) \| .+? \| (\d+) \|", PAGE[start:], re.M
    )
    return {name.strip("`"): int(code) for names, code in found for name in names.split(", ")}


_PYTHON = {
    "FileNotFoundError": OSError(errno.ENOENT, "No such file", "llama.m"),
    "IsADirectoryError": OSError(errno.EISDIR, "Is a directory", "models"),
    "NotADirectoryError": OSError(errno.ENOTDIR, "Not a directory", "llama.m/x"),
    "PermissionError": OSError(errno.EACCES, "Permission denied", "llama.m"),
    "OSError": OSError(errno.ENOSPC, "No space left on device", "trace.json"),
    "MemoryError": MemoryError(),
    "BrokenPipeError": OSError(errno.EPIPE, "Broken pipe"),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "any other": ZeroDivisionError(),
}


def test_the_page_has_pythons_errors() -> None:
    assert python_rows() == {name: int(exit_code(error)) for name, error in _PYTHON.items()}
    for name, error in _PYTHON.items():
        assert name in (type(error).__name__, "any other")


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),  # a port below 1024
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError(errno.EMFILE, "Too many open files", "llama.m"),
        OSError("no number"),
    ],
)
def test_what_names_no_path_or_is_not_about_it_is_the_machines(error: OSError) -> None:
    assert exit_code(error) is ExitCode.MACHINE


@pytest.mark.parametrize("number", [errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EROFS, errno.EPERM])
def test_whatever_is_wrong_with_a_path_is_the_callers(number: int) -> None:
    assert exit_code(OSError(number, "wrong", "llama.m")) is ExitCode.CALLER


# Words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CommandError("two captures"), "two captures"),
        (OSError(errno.ENOENT, "No such file", "llama.m"), "llama.m: No such file"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
        (MemoryError(), "out of memory"),
        (MemoryError("8 GB for an array"), "8 GB for an array"),
        (MachineError(), "MachineError"),
        (KeyError("x"), "a bug of this program, please report it: KeyError: 'x'"),
    ],
)
def test_an_error_is_a_text_for_a_person(error: Exception, text: str) -> None:
    assert error_text(error) == text


def test_a_bug_names_its_type_whatever_it_is() -> None:
    bug = LocalProtocolError("x", expected="1", got="2")
    assert error_text(bug).startswith(
        "a bug of this program, please report it: LocalProtocolError: x: expected 1"
    )


# Commands -------------------------------------------------------------------------------------------------


def fails(error: BaseException) -> int:
    def command() -> int:
        raise error

    return run_command("program", command)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CommandError("a\nb\x1b[31m"), r"a\nb\x1b[31m"),
        (OSError(errno.ENOENT, "No such file", "a\nb"), r"a\nb: No such file"),
    ],
)
def test_an_error_is_told_in_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(error) == ExitCode.CALLER
    assert capsys.readouterr() == ("", f"program: error: {line}\n")


def test_a_command_ends_with_what_it_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("program", lambda: 7) == 7
    assert capsys.readouterr() == ("", "")


def test_an_error_is_told_once_under_the_name_of_the_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    def inner() -> int:
        return run_command("program list", lambda: fails_with(CommandError("no")))

    assert run_command("program", inner) == ExitCode.CALLER
    assert capsys.readouterr() == ("", "program list: error: no\n")


def fails_with(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BrokenPipeError(errno.EPIPE, "Broken pipe"), Stopped()]
)
def test_what_is_no_failure_is_not_told(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(error) == exit_code(error)
    assert capsys.readouterr() == ("", "")


def test_a_bug_shows_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(ZeroDivisionError("odd")) == ExitCode.BUG
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):\n")
    assert __file__ in said
    assert said.endswith(
        "\nprogram: error: a bug of this program, please report it: ZeroDivisionError: odd\n"
    )


def test_what_argparse_says_passes() -> None:
    with pytest.raises(SystemExit, match="2"):
        fails(SystemExit(2))


def test_a_broken_pipe_that_rich_noticed_is_no_failure() -> None:
    def command() -> int:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 # as Console.on_broken_pipe does

    assert run_command("program", command) == ExitCode.DONE


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_may_be_closed(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, stream, None)
    assert fails(CommandError("no")) == ExitCode.CALLER
    assert run_command("program", lambda: 0) == ExitCode.DONE


def test_a_number_out_of_range_is_the_peers_for_the_root_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(session: object, options: object) -> None:
        raise KernelDataError("MOE_GATE block_moe_gate", "expert", 9, 8)

    report = Collected()
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(Report, "for_terminal", lambda: report)
    monkeypatch.setitem(run._COMMANDS, "inference", command)
    assert run.run_root(RootOptions("inference", prompt="x")) is ExitCode.PEER
    event, message, fields = report.told[-1]
    assert (event, message) == ("failed", "MOE_GATE block_moe_gate: expected expert in 0..7, got 9")
    assert fields["kind"] == "KernelDataError"
