"""Matrix products: MATMUL F32_F32_F32 and Q80_Q40_F32, with experts and without."""

from __future__ import annotations

import numpy as np
import torch

from dllama_ops import BaseKernel, OpContext, WeightData, WeightPieceError
from dllama_ops.params import MatmulParams
from dllama_ops_torch.memory import checked_indexes, decode_q40, read_rows, use_threads, view_of
from dllama_proto.enums import FloatType

__all__ = ["TorchMatmul"]

#: Q40 weights decoded at a time: what stays in a cache of a CPU; on a GPU, enough to keep it busy.
_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 24}


class TorchMatmul(BaseKernel):
    """Weight (z, d, n), input (slots, b, n) -> output (slots, b, d); slots: active experts, or 1.

    The weight lives on the device in the order and the bytes of the wire, Q40 as packed as it came, and is
    decoded a chunk of rows at a time for each forward: a node needs the model's memory once.
    """

    def __init__(self, context: OpContext, device: torch.device) -> None:
        super().__init__(context)
        if context.weight is None or not isinstance(context.params, MatmulParams):
            raise TypeError(f"expected a weight and MatmulParams for {context.key}, got {context.params}")
        self._spec, self._params, self._device = context.weight, context.params, device
        self._bytes = torch.empty(self._spec.n_bytes, dtype=torch.uint8, device=device)
        self._finished = False
        shape = self._spec.z, self._spec.x
        self._is_q40 = self._spec.float_type is FloatType.Q40
        self._weight = (
            self._bytes.view(*shape, self._spec.y // 32, 18)
            if self._is_q40
            else self._bytes.view(torch.float32).view(*shape, self._spec.y)
        )
        self._chunk = max(16, _CHUNK[device.type] // self._spec.y) if self._is_q40 else self._spec.x
        self._input, self._output = view_of(context.input), view_of(context.output)

    def weight_view(self, offset: int, n_bytes: int) -> memoryview | None:
        """Return the weight's own memory where it is the CPU's. Raises WeightPieceError."""
        self._check_piece(offset, n_bytes)
        if self._device.type != "cpu":
            return None
        return self._bytes.numpy().data[offset : offset + n_bytes]

    def load_weight(self, offset: int, data: WeightData) -> None:
        """Copy a piece to the device. Raises WeightPieceError."""
        piece = np.frombuffer(data, np.uint8)
        self._check_piece(offset, piece.size)
        # A copy, since PyTorch takes only memory that may be written to.
        self._bytes[offset : offset + piece.size] = torch.from_numpy(piece.copy())

    def finish_weight(self) -> None:
        """Accept no more pieces."""
        self._finished = True

    def forward(self, batch_size: int) -> None:
        """Multiply each row, with the experts that it chose. Raises KernelDataError."""
        use_threads(self.context.n_threads)
        indexes = self._params.active_expert_indexes
        experts = None
        if indexes is not None and self._params.n_active_experts:
            experts = checked_indexes(self.context, "expert indexes", indexes, batch_size, self._spec.z)
        x = read_rows(self._input[:, :batch_size], self.context.input.float_type, self._device)
        out = self._output[:, :batch_size]
        if experts is None:
            out[0].copy_(self._multiply(x[0], 0))
            return
        for expert in np.unique(experts).tolist():
            rows, slots = (torch.from_numpy(each) for each in np.nonzero(experts == expert))
            there = slots.to(self._device), rows.to(self._device)
            out[slots, rows] = self._multiply(x[there], expert).cpu()

    def _multiply(self, x: torch.Tensor, expert: int) -> torch.Tensor:
        """Return x (rows, n) times one expert's weight, (rows, d), on the device."""
        weight = self._weight[expert]
        if not self._is_q40:
            return x @ weight.T
        chunks = [x @ decode_q40(weight[start : start + self._chunk]).T for start in self._starts()]
        return torch.cat(chunks, dim=1) if len(chunks) > 1 else chunks[0]

    def _starts(self) -> range:
        return range(0, self._spec.x, self._chunk)

    def _check_piece(self, offset: int, n_bytes: int) -> None:
        where = f"{self.context.key} {self.context.name!r}"
        if self._finished:
            raise WeightPieceError(f"{where}: expected no more pieces, the weight is finished")
        if offset < 0 or offset + n_bytes > self._spec.n_bytes:
            raise WeightPieceError(
                f"{where}: expected pieces within the weight's {self._spec.n_bytes} bytes, "
                f"got bytes {offset} to {offset + n_bytes}"
            )
