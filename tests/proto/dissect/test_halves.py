"""A half keeps what waits, gaps between: nothing is lost, doubled or reordered, whatever is taken when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.dissect.events import MissingEvent
from dllama_proto.dissect.halves import Half
from tests.proto.dissect.rig import Reader, account, half_of
from tests.proto.stages import Pair


def _half() -> tuple[Half[Connection], Reader, list[object]]:
    kept, events = account()
    half = half_of(Connection(Role.WORKER), kept)
    reader = half._decoder
    assert isinstance(reader, Reader)
    return half, reader, events  # type: ignore[return-value]


#: Bytes that come, or a gap; or how many bytes are taken, dropped or passed, of those that can be.
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.integers(1, 9)),
        st.tuples(st.just("missing"), st.integers(1, 9)),
        st.tuples(
            st.sampled_from(["take", "take_chunk", "drop", "put_back", "pass_gap"]), st.integers(1, 9)
        ),
    ),
    max_size=40,
)


@given(_ACTIONS)
def test_what_is_taken_is_what_came(actions: list[tuple[str, int]]) -> None:
    half, reader, events = _half()
    #: Of each byte that waits: its value and time; None where it is missing.
    waiting: list[tuple[int, int] | None] = []
    taken: list[tuple[int, int]] = []
    value = offset = n_told = 0
    for time, (action, n) in enumerate(actions, start=1):
        ready = next((i for i, byte in enumerate(waiting) if byte is None), len(waiting))
        gap = next((i for i, byte in enumerate(waiting) if byte is not None), len(waiting))
        assert (half.pending, half.ready, half.offset) == (len(waiting), ready, offset)
        assert bool(half.gap) == bool(gap)
        if waiting and waiting[0] is not None:
            assert half.first_time == waiting[0][1]
        match action:
            case "data":
                part = bytes((value + i) % 256 for i in range(n))
                half.data(time, memoryview(part))
                waiting += [(byte, time) for byte in part]
                value, n_told = value + n, n_told + 1
            case "missing":
                half.missing(time, n)
                waiting += [None] * n
                n_told += 1
            case "put_back" if taken:
                n = min(n, len(taken))
                back = taken[-n:]
                half.put_back(back[0][1], memoryview(bytes(byte for byte, _ in back)))
                # All of it counts as captured at once.
                waiting[:0] = [(byte, back[0][1]) for byte, _ in back]
                del taken[-n:]
                offset -= n
            case "pass_gap" if gap:
                n = min(n, half.gap)
                half.pass_gap(n, "somewhere")
                event = events[-1]
                assert isinstance(event, MissingEvent)
                assert (event.offset, event.size, event.within) == (offset, n, "somewhere")
                del waiting[:n]
                taken.clear()
                offset += n
            case "take" | "take_chunk" | "drop" if ready:
                n = min(n, ready)
                if action == "take_chunk":
                    last, view = half.take_chunk()
                    n = len(view)
                    assert n <= ready
                elif action == "take":
                    last, view = half.take(n)
                else:
                    last, view = half.drop(n), memoryview(b"")
                gone = [byte for byte in waiting[:n] if byte is not None]
                assert len(gone) == n
                assert last == max(captured for _, captured in gone)
                if action != "drop":
                    assert bytes(view) == bytes(byte for byte, _ in gone)
                taken = [*taken, *gone]
                del waiting[:n]
                offset += n
            case _:
                pass
    assert reader.n_moved == n_told
    assert half.stream.missing == sum(event.size for event in events if isinstance(event, MissingEvent))


def test_the_bulk_of_a_weight_passes_but_for_its_last_bytes() -> None:
    half, reader, _ = _half()
    half.bulk = 10
    half.data(1, memoryview(bytes(4)))
    half.data(2, memoryview(bytes(5)))
    assert (half.bulk, half.offset, half.pending, reader.n_moved) == (1, 9, 0, 0)
    half.data(3, memoryview(b"ab"))
    assert (half.bulk, half.offset, half.pending, reader.n_moved) == (1, 9, 2, 1)
    # What waits must be read before what comes behind it.
    half.data(4, memoryview(b"c"))
    assert half.take(3) == (4, memoryview(b"abc"))


def test_what_is_skipped_is_one_run_up_to_a_gap() -> None:
    half, reader, events = _half()
    half.skip()
    half.data(1, memoryview(b"abc"))
    half.data(2, memoryview(b"de"))
    assert (half.offset, reader.n_moved) == (5, 0)
    half.missing(3, 4)
    assert reader.n_moved == 1
    assert half.skipped is not None
    half.skipped.end("why")
    assert [(e.offset, e.size, e.began, e.time) for e in events] == [(0, 5, 1, 2)]  # type: ignore[attr-defined]
    # What comes behind a gap waits until the gap is passed.
    half.data(4, memoryview(b"f"))
    assert (half.gap, half.pending, half.offset, reader.n_moved) == (4, 5, 5, 2)


def test_the_end_is_passed_on() -> None:
    half, reader, _ = _half()
    half.end(7, reset=True)
    assert reader.ends == [(7, True)]


def test_time_is_that_of_the_last_byte_captured() -> None:
    half, _, _ = _half()
    half.data(5, memoryview(b"a"))
    half.data(3, memoryview(b"b"))
    assert half.time == 5
    assert half.take(2) == (5, memoryview(b"ab"))
    assert half.first_time == 5


def test_no_more_can_be_taken_or_passed_than_there_is() -> None:
    half, _, _ = _half()
    half.data(1, memoryview(b"a"))
    half.missing(2, 3)
    with pytest.raises(RuntimeError, match="a gap within bytes that are ready"):
        half.take(2)
    with pytest.raises(RuntimeError, match="4 missing bytes where there are not as many"):
        half.pass_gap(4, "")


def test_a_payload_counts_for_both_ends() -> None:
    pair = Pair().advance_to(Phase.SLICES)
    kept, _ = account()
    half = half_of(pair.worker, kept)
    half.other.link = pair.root
    before = pair.worker.payload_size, pair.root.unsent_size
    half.count_payload(3)
    assert (pair.worker.payload_size, pair.root.unsent_size) == (before[0] - 3, before[1] - 3)
