"""A prompt goes in, tokens come out, one at a time (C++ ``inference``, ``dllama.cpp``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.inference import Inference
from dllama_worker.root.sampler import Sampler

__all__ = ["Generation"]


@dataclass(slots=True)
class Generation:
    """What it took: ``evaluation`` of the prompt, ``prediction`` of the tokens after it.

    ``stopped`` is asked between two forwards whether to end; the nodes are at the same place then.
    """

    inference: Inference
    sampler: Sampler
    stopped: Callable[[], bool] = lambda: False
    evaluation: ForwardTimes = field(default_factory=ForwardTimes)
    prediction: ForwardTimes = field(default_factory=ForwardTimes)

    def evaluate(self, tokens: Sequence[int]) -> npt.NDArray[np.float32] | None:
        """Evaluate a prompt; return the logits of its last token, None where it was stopped before."""
        return self.inference.prefill(tokens, self.evaluation, self.stopped)

    def predict(self, logits: npt.NDArray[np.float32] | None, limit: int) -> Iterator[int]:
        """Yield sampled tokens, each evaluated only when the next is asked for.

        Ends after ``limit`` tokens, with the context, or when it is stopped. The first token comes from
        ``logits``; where a prompt was not evaluated to its end, there are none, and so no token.
        """
        if logits is None or self.stopped():
            return
        for n in range(limit):
            token = self.sampler.sample(logits)
            yield token
            if n + 1 == limit or self.inference.position >= self.inference.seq_len or self.stopped():
                return
            logits = self.inference.forward([token], self.prediction)[0]

    def predict_after(self, token: int, limit: int) -> Iterator[int]:
        """Evaluate one token, then go on as :meth:`predict`: how C++ ends a prompt."""
        return self.predict(self.inference.forward([token], self.prediction)[0], limit)
