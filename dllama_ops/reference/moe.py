"""The choice of experts: MOE_GATE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dllama_ops.kernel import OpContext
from dllama_ops.memory_need import batch_values
from dllama_ops.params import MoeGateParams
from dllama_ops.reference._kernel import F32Array, ReferenceKernel, params_of

__all__ = ["MoeGate", "top_k"]


def top_k(x: F32Array, k: int) -> npt.NDArray[np.intp]:
    """Return the columns of the k largest values of each row, largest first: x (b, n) -> (b, k).

    Of equal values the first column comes first; C++ ``topk_F32`` leaves their order open.
    """
    return np.argsort(-x, axis=-1, kind="stable")[:, :k]


class MoeGate(ReferenceKernel):
    """MOE_GATE F32_F32_F32: x (b, n_experts) -> indexes (b, k), out (k, b, 1).

    C++ ``moeGateForward_F32_F32``.
    """

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._params = params_of(context, MoeGateParams)

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count the values with their signs turned, their order, and the weights and numbers of the best."""
        return 32 * batch_values(context, context.input) + 48 * context.n_batches * context.output.z

    def compute(self, batch_size: int) -> None:
        """Write each row's best experts and their weights, divided by the weights' sum if so configured."""
        x = self.context.input.data[0, :batch_size]
        experts = top_k(x, self._params.k)
        weights = np.take_along_axis(x, experts, axis=-1)
        if self._params.norm_topk:
            weights /= weights.sum(axis=-1, keepdims=True)
        self._params.indexes.data[0, :batch_size] = experts
        self.context.output.data[:, :batch_size, 0] = weights.T
