"""Tokens in, logits out: commands the cluster and computes the root's own slice (C++ ``RootLlmInference``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from dllama_proto.names import Pipe
from dllama_worker.errors import BadLogits, InternalError, PeerLost
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.node.node import Node
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.history import History

__all__ = ["Inference"]


class Inference:
    """A model on a cluster, with weights loaded. ``vocab_size`` logits a row; ``seq_len`` positions.

    With ``reconnect``, which has all workers ready again or raises, a lost worker is survived: everything up to
    the position reached is evaluated again, in the same batches, so the numbers are the same.
    ``weights_are_local`` where the workers were to read the weights themselves: C++ workers compute with none.
    """

    def __init__(
        self,
        node: Node,
        cluster: Cluster,
        *,
        vocab_size: int,
        seq_len: int,
        reconnect: Callable[[PeerLost], None] | None = None,
        weights_are_local: bool = False,
    ) -> None:
        if node.executor is None:
            raise InternalError("inference needs a node with weights")
        pipes = {
            config.name: pipe.data for config, pipe in zip(node.net.pipes, node.memory.pipes, strict=True)
        }
        self._node = node
        self._reconnect = reconnect
        self._weights_are_local = weights_are_local
        self._history = History()
        self._cluster = cluster
        self._tokens = pipes[Pipe.TOK.name]
        self._logits = pipes[Pipe.LG.name][0, :, :vocab_size]
        self._logits_width = pipes[Pipe.LG.name].shape[2]
        self.n_batches = node.net.n_batches
        self.seq_len = seq_len
        self.position = 0

    def forward(self, tokens: Sequence[int], times: ForwardTimes) -> npt.NDArray[np.float32]:
        """Evaluate up to ``n_batches`` tokens at the current position and go on behind them.

        Returns their logits, [len(tokens)][vocab_size], a view that the next forward overwrites. Raises
        PeerLost, KernelDataError, and BadLogits where they are not numbers.
        """
        batch_size = len(tokens)
        if not 0 < batch_size <= self.n_batches or self.position + batch_size > self.seq_len:
            raise InternalError(
                f"expected 1 to {self.n_batches} tokens within {self.seq_len} positions, "
                f"got {batch_size} at {self.position}"
            )
        self._history.cut(self.position)
        while True:
            try:
                self._evaluate(self.position, tokens)
                break
            except PeerLost as error:
                self._recover(error)
        logits = self._logits[:batch_size]
        # The largest is NaN where any is. The sampler and perplexity look at each anyway.
        if not np.isfinite(logits.max()):
            raise BadLogits(self._blame(logits))
        self._history.add(self.position, tokens)
        self.position += batch_size
        if (executor := self._node.executor) is not None:
            times.add(batch_size, executor.op_seconds, executor.sync_seconds)
        return logits

    def _evaluate(self, position: int, tokens: Sequence[int]) -> None:
        self._tokens[0, : len(tokens), 0] = tokens
        self._cluster.command(position, len(tokens))
        self._node.forward(position, len(tokens))
        self._cluster.forward_done()

    def _recover(self, error: PeerLost) -> None:
        """Have the workers connected again and tell them everything that has been evaluated. Raises PeerLost."""
        while True:
            if self._reconnect is None:
                raise error
            self._reconnect(error)
            try:
                for position, tokens in self._history.batches():
                    self._evaluate(position, tokens)
                return
            except PeerLost as another:
                error = another

    def prefill(
        self, tokens: Sequence[int], times: ForwardTimes, stopped: Callable[[], bool] = lambda: False
    ) -> npt.NDArray[np.float32] | None:
        """Evaluate any number of tokens in full batches; return the logits of the last, [vocab_size].

        ``stopped`` is asked between two batches: None is returned where it ends the work before the last one.
        """
        if not tokens:
            raise InternalError("expected at least one token to evaluate")
        for start in range(0, len(tokens), self.n_batches):
            if start and stopped():
                return None
            logits = self.forward(tokens[start : start + self.n_batches], times)
        last: npt.NDArray[np.float32] = logits[-1]
        return last

    def _blame(self, logits: npt.NDArray[np.float32]) -> str:
        """Say whose columns of the logits are no numbers, where not everybody's are."""
        width = (
            self._logits_width // self._cluster.n_nodes
        )  # of each node, the last one's reaching past the end
        shares = [logits[:, node * width : (node + 1) * width] for node in range(self._cluster.n_nodes)]
        bad = [node for node, share in enumerate(shares) if share.size and not np.isfinite(share.max())]
        names = ["the root" if node == 0 else self._cluster.links[node].name for node in bad]
        whose = "every node's" if len(bad) == self._cluster.n_nodes else "those of " + ", ".join(names)
        advice = (
            "a node computes wrongly, or the model's weights are broken: run dllama-ops check on each node"
        )
        if self._weights_are_local:
            advice = (
                "a worker has no weights, as C++ workers read none from a file: leave --weights local out"
            )
        where = f"the logits at position {self.position}"
        return f"{where} are not numbers ({whose}), expected finite ones: {advice}"

    def finish(self) -> None:
        """End the session on every worker."""
        self._cluster.stop(self.position)
