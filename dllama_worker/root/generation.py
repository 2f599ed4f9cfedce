"""A prompt goes in, tokens come out, one at a time (C++ ``inference``, ``dllama.cpp``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.inference import Inference
from dllama_worker.root.sampler import Sampler

__all__ = ["Generation", "prompt_perplexity"]


@dataclass(slots=True)
class Generation:
    """What it took: ``evaluation`` of the prompt, ``prediction`` of the tokens after it."""

    inference: Inference
    sampler: Sampler
    evaluation: ForwardTimes = field(default_factory=ForwardTimes)
    prediction: ForwardTimes = field(default_factory=ForwardTimes)

    def evaluate(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Evaluate a prompt; return the logits of its last token."""
        return self.inference.prefill(tokens, self.evaluation)

    def predict(self, logits: npt.NDArray[np.float32], limit: int) -> Iterator[int]:
        """Yield sampled tokens, each evaluated only when the next is asked for.

        Ends after ``limit`` tokens, or with the context. The first comes from ``logits``.
        """
        for n in range(limit):
            token = self.sampler.sample(logits)
            yield token
            if n + 1 == limit or self.inference.position >= self.inference.seq_len:
                return
            logits = self.inference.forward([token], self.prediction)[0]

    def predict_after(self, token: int, limit: int) -> Iterator[int]:
        """Evaluate one token, then go on as :meth:`predict`: how C++ ends a prompt."""
        return self.predict(self.inference.forward([token], self.prediction)[0], limit)


def prompt_perplexity(inference: Inference, tokens: Sequence[int], times: ForwardTimes) -> float:
    """Return exp of the mean negative log-probability of each token after those before it.

    C++ ``perplexity`` (``dllama.cpp``) does the same a row at a time, with float32 sums.
    """
    total = 0.0
    for start in range(0, len(tokens) - 1, inference.n_batches):
        batch = tokens[start : min(start + inference.n_batches, len(tokens) - 1)]
        logits = inference.forward(batch, times).astype(np.float64)
        targets = np.array(tokens[start + 1 : start + 1 + len(batch)])
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(batch)), targets] - np.log(np.exp(logits).sum(axis=1))
        # As C++: one impossible token must not make the whole infinite.
        total += float(np.maximum(chosen, np.log(1e-30)).sum())
    return float(np.exp(-total / (len(tokens) - 1)))
