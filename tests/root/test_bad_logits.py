"""What a cluster computes may be no numbers: then a node is to blame, not this program."""

from __future__ import annotations

import numpy as np
import pytest

from dllama_proto.exit_codes import ExitCode
from dllama_worker.errors import BadLogits
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.report import Report
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "stream_weights", "advice"),
    [(np.nan, True, "run dllama-ops check on each node"), (np.inf, False, "leave --weights local out")],
)
def test_logits_that_are_no_numbers_are_a_nodes_fault(
    monkeypatch: pytest.MonkeyPatch, bad: float, stream_weights: bool, advice: str
) -> None:
    options = RootOptions("inference", stream_weights=stream_weights)
    with open_session(options, Report()) as session:
        inference = session.inference
        logits = inference.forward([1, 2, 3], ForwardTimes())
        assert np.isfinite(logits).all()

        def lie() -> None:
            logits[0, 7] = bad

        monkeypatch.setattr(session.cluster, "forward_done", lie)
        with pytest.raises(BadLogits, match=r"at position 3 are not numbers \(every node's\)") as caught:
            inference.forward([4], ForwardTimes())
        assert str(caught.value).endswith(advice)
        assert caught.value.exit_code is ExitCode.PEER
        assert inference.position == 3
