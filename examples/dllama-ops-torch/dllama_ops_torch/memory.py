"""Between the node's memory and a device: rows as tensors, quantised blocks decoded, indexes checked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dllama_ops import KernelDataError, OpContext, Tensor
from dllama_proto.enums import FloatType

__all__ = ["checked_indexes", "decode_q40", "decode_q80", "read_rows", "use_threads", "view_of"]

_SCALE_BYTES = 2


def view_of(tensor: Tensor) -> torch.Tensor:
    """Return the node's own memory as a tensor: float32 (z, y, x), or bytes (z, y, blocks, bytes a block)."""
    data = tensor.data
    if data.dtype.fields is None:
        return torch.from_numpy(data)
    return torch.unflatten(torch.from_numpy(data.view(np.uint8)), -1, (-1, data.dtype.itemsize))


def read_rows(rows: torch.Tensor, float_type: FloatType, device: torch.device) -> torch.Tensor:
    """Return rows of :func:`view_of` as float32 on a device; blocks travel as they are and are decoded there."""
    rows = rows.to(device)
    return decode_q80(rows) if float_type is FloatType.Q80 else rows


def decode_q80(blocks: torch.Tensor) -> torch.Tensor:
    """Decode blocks (…, n / 32, 34): a half-precision scale, 32 signed bytes. Exact: 8 bits times 11."""
    scales, codes = _split(blocks)
    return (codes.view(torch.int8) * scales).flatten(-2)


def decode_q40(blocks: torch.Tensor) -> torch.Tensor:
    """Decode blocks (…, n / 32, 18): a half-precision scale, 16 bytes with a value in each half, plus 8.

    The low halves are the block's first 16 values. Exact, as float32.
    """
    scales, codes = _split(blocks)
    values = torch.cat((codes & 15, codes >> 4), dim=-1).view(torch.int8)
    return ((values - 8) * scales).flatten(-2)


def _split(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return blocks[..., :_SCALE_BYTES].view(torch.float16).float(), blocks[..., _SCALE_BYTES:]


def checked_indexes(
    context: OpContext, what: str, numbers: Tensor, batch_size: int, bound: int
) -> npt.NDArray[np.intp]:
    """Return the numbers of the batch's rows, (batch_size, n), as indexes.

    They came over the network. Raises KernelDataError where one is not in 0..bound-1.
    """
    values = numbers.data[0, :batch_size]
    valid = (values >= 0) & (values < bound)
    if not valid.all():
        op = f"{context.key} {context.name!r} of layer {context.index}"
        raise KernelDataError(op, what, float(values[~valid][0]), bound)
    return values.astype(np.intp)


def use_threads(n_threads: int) -> None:
    """Let PyTorch compute with as many threads as the node may use; the setting is the process's."""
    if torch.get_num_threads() != n_threads:
        torch.set_num_threads(n_threads)
