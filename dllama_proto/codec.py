"""One message at a time: a record to bytes, and exactly those bytes back to the record.

For tools and tests that have a message and no session. Whoever talks to a node takes
:class:`dllama_proto.connection.Connection`, which also knows whose turn it is and whether a message goes with
those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.events import Ack, Event, WeightsEnd
from dllama_proto.formatting import counted
from dllama_proto.limits import DEFAULT_LIMITS, Limits
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.incremental import read_message
from dllama_proto.schemas.layout import field_spans
from dllama_proto.schemas.weights import WEIGHTS_END_BYTES
from dllama_proto.schemas.wire import Record, build_exactly

__all__ = ["decode", "encode"]

R = TypeVar("R")


def encode(message: Event) -> bytes:
    """Return the bytes of a message; payloads, weights and slices, are none.

    Raises LocalProtocolError where a value does not fit its field.
    """
    if isinstance(message, Ack):
        return ACK_BYTES
    if isinstance(message, WeightsEnd):
        return WEIGHTS_END_BYTES
    return build_exactly(_schema(type(message)), message, type(message).__name__)


def decode(message: type[R], data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> R:
    """Return the message of this class that ``data`` is, all of it; ``encode`` gives the same bytes again.

    Only the bytes are judged: codes are known, counts within ``limits``, texts whole. Whether a configuration
    makes sense is for :mod:`dllama_proto.verify`. An Ack cannot be decoded, since which one it is follows from
    its place in a session.

    Raises RemoteProtocolError, with field and byte, where bytes are wrong, missing, or left over.
    """
    view = memoryview(data).cast("B")
    if message is WeightsEnd:
        if view != WEIGHTS_END_BYTES:
            raise RemoteProtocolError(
                "WeightsEnd",
                expected=WEIGHTS_END_BYTES.hex(" "),
                got=view[:8].hex(" ") or "nothing",
                offset=0,
            )
        return message()
    schema = _schema(message)
    record, size = _read(schema, message.__name__, view, limits)
    if size < len(view):
        raise RemoteProtocolError(
            message.__name__,
            expected=f"a message of {size} bytes",
            got=f"{counted(len(view) - size, 'byte')} more",
            offset=size,
        )
    _check_constants(schema, record, message.__name__, view)
    return record


def _schema(message: type[R]) -> Record[R]:
    try:
        return cast("Record[R]", MESSAGES[message])
    except KeyError:
        names = ", ".join(known.__name__ for known in MESSAGES)
        raise LocalProtocolError(
            message.__name__, expected=f"a message: {names}", got=message.__name__
        ) from None


def _read(schema: Record[R], name: str, view: memoryview, limits: Limits) -> tuple[R, int]:
    """Read a message from the start of ``view``; return it and its size."""
    reader = read_message(schema, name, limits)
    piece = next(reader)
    while True:
        end = piece.offset + piece.size
        if end > len(view):
            raise RemoteProtocolError(
                piece.path,
                expected=f"{counted(end - len(view), 'byte')} more",
                got="the end of the bytes",
                offset=len(view),
            )
        try:
            piece = reader.send(view[piece.offset : end])
        except StopIteration as stop:
            if stop.value is None:
                raise RemoteProtocolError(
                    name, expected="a message", got="a length of 0, the end of the list", offset=0
                ) from None
            return stop.value, end


def _check_constants(schema: Record[Any], record: Any, name: str, view: memoryview) -> None:
    """Compare with the bytes that the record makes: what stands on the wire only is read, but not kept."""
    data = build_exactly(schema, record, name)
    if view == data:
        return
    for path, start, end in _places(schema, record, name):
        if view[start:end] != data[start:end]:
            raise RemoteProtocolError(
                path, expected=data[start:end].hex(" "), got=view[start:end].hex(" "), offset=start
            )


def _places(schema: Record[Any], record: Any, name: str) -> Iterator[tuple[str, int, int]]:
    return ((span.path, span.offset, span.offset + span.size) for span in field_spans(schema, record, name))
