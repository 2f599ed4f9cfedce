"""Thousands of sessions in a capture: what each costs does not depend on how many there are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from types import FrameType
from typing import Any, BinaryIO, cast

import pytest

import dllama_proto
from dllama_proto.connection import Role
from dllama_proto.dissect import Endpoint, dissect_pcap
from dllama_proto.dissect.recording import RecordedConnection, file_header
from dllama_proto.messages import Greeting, Peer
from dllama_proto.schemas.handshake import GREETING
from tests.proto.dissect.rig import whole_script

_ROOT, _WORKER = "10.0.0.1", Endpoint("10.0.0.2", 9990)
_PEERS = (Peer("10.0.0.3", 9990), Peer("10.0.0.4", 9990))


def count_lines(call: Callable[[], object]) -> int:
    """Return how many lines of the package a call executes: the work that it does, on any machine."""
    folder = dllama_proto.__file__.removesuffix("__init__.py")
    n = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal n
        n += event == "line"
        return line

    def entered(frame: FrameType, event: str, argument: object) -> Any:
        return line if frame.f_code.co_filename.startswith(folder) else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        call()
    finally:
        sys.settrace(before)
    return n


def _greeted(number: int, data: bytes, *, closed: bool) -> bytes:
    made = RecordedConnection(Endpoint(_ROOT, 1024 + number), _WORKER)
    time = 1_000_000 * number
    parts = [made.opened(time), made.data(time + 1, data, from_dialler=True)]
    if closed:
        parts += [made.closed(time + 2, from_dialler=end) for end in (True, False)]
    return b"".join(parts)


def _whole_session(number: int) -> bytes:
    """Return a session whose worker 2 has been told everything, and one link of it to worker 3."""
    made = RecordedConnection(Endpoint(_ROOT, 1024 + number), _WORKER)
    time = 1_000_000 * number
    parts = [made.opened(time)]
    for role, data in whole_script():
        parts.append(made.data(time, data, from_dialler=role is Role.ROOT))
    peer = RecordedConnection(Endpoint("10.0.0.2", 1024 + number), Endpoint("10.0.0.4", 9990))
    parts += [peer.opened(time), peer.data(time, b"1234", from_dialler=True)]
    parts += [each.closed(time + 2, from_dialler=end) for each in (made, peer) for end in (True, False)]
    return b"".join(parts)


def capture(kind: str, n: int) -> bytes:
    """Return a capture of ``n`` connections of some kind."""
    greeting = Greeting(1, 0, ())
    match kind:
        case "one of three":
            greeting = Greeting(3, 1, _PEERS)
        case "whole sessions":
            return file_header() + b"".join(map(_whole_session, range(n)))
        case _:
            pass
    data = bytes(GREETING.build(greeting))
    if kind == "no greetings":
        data = b"GET / HTTP/1.1\r\n\r\n"
    return file_header() + b"".join(_greeted(number, data, closed=kind == "closed") for number in range(n))


def dissect(data: bytes) -> tuple[int, int, int]:
    """Return sessions, explained and unexplained bytes."""
    dissection = dissect_pcap(cast("BinaryIO", BytesIO(data)))
    for _ in dissection:
        pass
    totals = dissection.totals
    return totals.sessions, totals.explained_bytes, totals.unexplained_bytes


@pytest.mark.parametrize("kind", ["alone", "closed", "one of three", "whole sessions", "no greetings"])
def test_twice_as_many_connections_are_twice_as_much_work(kind: str) -> None:
    # More than are remembered as still greeting; of whole sessions, which have greeted, fewer will do.
    n = 20 if kind == "whole sessions" else 80
    small, middle, large = (capture(kind, times * n) for times in (1, 2, 4))
    assert dissect(small)[0] == (0 if kind == "no greetings" else n)
    dissect(large)  # what is made once is made now
    one, two, four = (count_lines(lambda data=data: dissect(data)) for data in (small, middle, large))  # type: ignore[misc]
    assert four - two == pytest.approx(2 * (two - one), rel=0.02)
