"""Who is to blame for an error, and the exit code of a command that ends with it.

An error class of this project states its own code, once, as the attribute ``exit_code``; what Python raises is
assigned here. Every command runs inside :func:`run_command`, so the same error ends all of them in the same way.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import ClassVar, Final

from dllama_proto.bounded_text import ERROR_LENGTH, shortened
from dllama_proto.standard_streams import open_standard_streams
from dllama_proto.terminal import print_line

__all__ = ["AMISS", "CommandError", "ExitCode", "error_text", "exit_code", "run_command", "tell"]


class ExitCode(IntEnum):
    """How a command ends."""

    DONE = 0
    #: A bug of this project.
    BUG = 1
    #: Wrong arguments, or a file that cannot be used.
    CALLER = 2
    #: Another node went away, broke the protocol, or asked for what cannot be done.
    PEER = 3
    #: This machine lacks something: a free port, memory, room on the disk.
    MACHINE = 4
    #: Ctrl-C; what a shell reports for it (128 + SIGINT).
    INTERRUPTED = 130


#: What a command that checks or compares returns where something is amiss, as cmp(1) and diff(1) do. It is an
#: answer and no failure: nothing is told on standard error.
AMISS: Final = 1

#: What is wrong with a path that somebody gave; any other error of the system is the machine's.
_PATH_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EFBIG,  # more than such a file can hold
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,  # a socket, or where a file was expected, a pipe or a device
        errno.EPERM,
        errno.EROFS,
    }
)


#: What Python says where the system lets this process have no more threads; it has no type of its own.
_NO_THREAD = "can't start new thread"


class CommandError(Exception):
    """A command cannot do what it was asked: arguments that do not go together, or a file of the wrong kind."""

    exit_code: ClassVar[ExitCode] = ExitCode.CALLER


def exit_code(error: BaseException) -> ExitCode:
    """Return what a command ends with that ``error`` ended.

    An OSError about a path is the caller's only if it names the path: a port may be forbidden, too.
    """
    stated = getattr(error, "exit_code", None)
    if isinstance(stated, ExitCode):
        return stated
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return ExitCode.DONE  # whoever read the output has seen enough (head, less)
    if isinstance(error, OSError):
        named = error.filename is not None and error.errno in _PATH_ERRORS
        return ExitCode.CALLER if named else ExitCode.MACHINE
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return ExitCode.MACHINE
    return ExitCode.MACHINE if isinstance(error, MemoryError) else ExitCode.BUG


def error_text(error: BaseException) -> str:
    """Return an error as a text for a person, cut off where nobody reads on.

    Who prints it escapes what of it came from elsewhere.
    """
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = str(error) or "out of memory"
    else:
        text = str(error) or type(error).__name__
    if exit_code(error) is ExitCode.BUG:
        text = f"a bug of this program, please report it: {type(error).__name__}: {error}"
    return shortened(text, ERROR_LENGTH)


def tell(name: str, error: BaseException) -> ExitCode:
    """Write one line about an error to standard error, a bug's traceback before it; return the exit code.

    Nothing is written where nothing failed: somebody pressed Ctrl-C, or has read enough of the output.
    """
    code = exit_code(error)
    if code not in (ExitCode.DONE, ExitCode.INTERRUPTED) and sys.stderr is not None:
        if code is ExitCode.BUG:
            # Set in but for its head, since a line of it may be a text from elsewhere: none looks like our own.
            head, *lines = "".join(traceback.format_exception(error)).splitlines()
            print_line(head, sys.stderr)
            for line in lines:
                print_line(f"  {shortened(line, ERROR_LENGTH)}", sys.stderr)
        print_line(f"{name}: error: {error_text(error)}", sys.stderr)
    return code


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit code: what ``command`` returns, or the code of the error that it raises.

    The error is told under ``name``. Output that waits is written before the end, so that a full disk or a reader
    who left counts as well. Calls may be nested: the inner one tells the errors of a subcommand under its name.
    """
    open_standard_streams()
    try:
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # what rich makes of one
            raise
        code = ExitCode.DONE
    except (Exception, KeyboardInterrupt) as error:
        code = tell(name, error)
    finally:
        _drop_output()
    return code


def _drop_output() -> None:
    """Write what still waits, or drop it where that fails: Python would try again at exit, and end with 120."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
