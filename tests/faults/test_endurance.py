"""Session after session on one process; ``make soak`` does it for long."""

from __future__ import annotations

import sys

import pytest

from tests.faults.endurance import many_sessions

#: Pages that come and go.
SPARE_BYTES = 4_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_many_sessions_leave_nothing_behind() -> None:
    before, after = many_sessions(120)
    assert after.memory - before.memory < SPARE_BYTES
    assert after.descriptors == before.descriptors
    assert after.threads == before.threads
