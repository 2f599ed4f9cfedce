"""The account: every event with its sum, and bytes that mean nothing as one event for each run of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.dissect.account import NOTHING, UnexplainedRun
from dllama_proto.dissect.events import MissingEvent, NoticeEvent, UnexplainedEvent
from tests.proto.dissect.rig import account, conversation, streams_of


def test_what_is_reported_is_also_counted() -> None:
    kept, events = account()
    stream, other = streams_of(conversation())
    kept.missing(5, stream, 0, 7, "a message")
    kept.unexplained(9, stream, 7, 3, "why", began=8, raw=memoryview(b"abc"))
    kept.explained(UnexplainedEvent(9, 9, stream, 10, 6, NOTHING, "stands for any event"), 4)
    assert (stream.missing, stream.unexplained, stream.explained) == (7, 3, 4)
    assert (other.missing, other.unexplained, other.explained) == (0, 0, 0)
    assert events[0] == MissingEvent(5, 5, stream, 0, 7, NOTHING, "a message")
    assert events[1] == UnexplainedEvent(9, 8, stream, 7, 3, memoryview(b"abc"), "why")
    assert len(events) == 3


def test_a_notice_counts_nothing_and_may_be_about_the_file() -> None:
    kept, events = account()
    stream, _ = streams_of(conversation())
    kept.notice(3, stream, "text", 17)
    kept.notice(4, None, "file")
    assert events == [
        NoticeEvent(3, 3, stream, 17, 0, NOTHING, "text"),
        NoticeEvent(4, 4, None, 0, 0, NOTHING, "file"),
    ]
    assert (stream.missing, stream.unexplained, stream.explained) == (0, 0, 0)


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), max_size=5), max_size=4))
def test_each_run_is_one_event_of_all_its_bytes(runs: list[list[tuple[int, int]]]) -> None:
    """Bytes may have been captured in another order than they were sent: the time is that of the last."""
    kept, events = account()
    stream, _ = streams_of(conversation())
    run = UnexplainedRun(kept, stream)
    offset, wanted = 0, []
    for parts in runs:
        start = offset
        for n, time in parts:
            run.add(time, offset, n)
            offset += n
        run.end("why")
        run.end("nothing is left of it")
        if parts:
            times = [time for _, time in parts]
            wanted.append(
                UnexplainedEvent(max(times), times[0], stream, start, offset - start, NOTHING, "why")
            )
    assert events == wanted
    assert stream.unexplained == offset
