"""What a kernel is: made once for one op of one node, given its weight, then called for every batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dllama_ops.blame import OWN_PLUGINS, Blame
from dllama_ops.params import OpParams
from dllama_ops.scope import NodeScope
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.bounded_text import quoted
from dllama_proto.enums import OpCode, OpQuantType

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "BaseKernel",
    "BoundOp",
    "CompiledSegment",
    "Kernel",
    "KernelFactory",
    "KernelKey",
    "OpContext",
    "ProfiledSegment",
    "WeightData",
]

#: Bytes of a weight, as they came from the network or a memory-mapped file (a memoryview of format B).
WeightData = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, order=True)
class KernelKey:
    """What a kernel is chosen by."""

    code: OpCode
    quant: OpQuantType

    def __str__(self) -> str:
        return f"{self.code.name} {self.quant.name}"


@dataclass(frozen=True, slots=True, eq=False)
class OpContext:
    """Everything about one op of one node. Already verified: shapes fit the op, indexes are in range.

    ``name`` and ``index`` (the layer) are the op's on the wire; ``weight`` is None for ops without one;
    ``params`` is a record of the class that the op's spec says (:mod:`dllama_ops.op_spec`).
    """

    key: KernelKey
    name: str
    index: int
    n_batches: int
    n_threads: int
    input: Tensor
    output: Tensor
    weight: WeightSpec | None
    params: OpParams | DataclassInstance
    #: What it has in common with the other ops of its node; None for an op that is run alone.
    scope: NodeScope | None = None

    @property
    def where(self) -> str:
        """Which op this is, for people."""
        return f"{self.key} {quoted(self.name)} of layer {self.index}"


class Kernel(Protocol):
    """One op, ready to run.

    The worker calls ``load_weight`` (or fills ``weight_view``) for every piece, in any order, then
    ``finish_weight`` once, then ``forward`` for every batch, always from one thread at a time.
    """

    def weight_view(self, offset: int, n_bytes: int) -> memoryview | None:
        """Return writable memory for a piece, to be filled from the network in place, or None.

        Whoever gets None receives the piece elsewhere and calls ``load_weight``. Raises WeightPieceError
        where the piece does not lie within the weight.
        """

    def load_weight(self, offset: int, data: WeightData) -> None:
        """Take a piece of the weight: its bytes as on the wire, from byte ``offset`` on.

        Raises WeightPieceError where the piece does not lie within the weight.
        """

    def finish_weight(self) -> None:
        """Every byte has arrived; called once, also for ops without a weight."""

    def forward(self, batch_size: int) -> None:
        """Compute the first ``batch_size`` rows of each z; leave the other rows alone.

        Raises KernelDataError, before anything is written, where a position, token or expert index among
        the batch's data is out of range.
        """


class BaseKernel:
    """Defaults for a kernel without a weight: only ``forward`` is left to write."""

    def __init__(self, context: OpContext) -> None:
        self.context = context

    def weight_view(self, offset: int, n_bytes: int) -> memoryview | None:
        """Return None: this op has no weight, so there is no memory to write it to."""
        return None

    def load_weight(self, offset: int, data: WeightData) -> None:
        """Refuse: this op has no weight."""
        raise TypeError(f"{self.context.where} takes no weight")

    def finish_weight(self) -> None:
        """Do nothing: this op has no weight."""


KernelFactory = Callable[[OpContext], Kernel]


@dataclass(frozen=True, slots=True, eq=False)
class BoundOp:
    """An op with the kernel that was chosen for it, and the plugin that has it (none: it is made by hand)."""

    context: OpContext
    kernel: Kernel
    plugin: str = ""

    def blame(self, doing: str) -> Blame:
        """Return in what to call the kernel: its plugin is named where it raises while ``doing`` the op."""
        return Blame(self.plugin, f"{doing} {self.context.where}")

    @property
    def forward(self) -> Callable[[int], None]:
        """The kernel's own ``forward``; for an installed plugin's kernel, one that raises KernelFailed."""
        forward, blame = self.kernel.forward, self.blame("compute")
        if self.plugin in OWN_PLUGINS:
            return forward

        def guarded(batch_size: int) -> None:
            with blame:
                forward(batch_size)

        return guarded


class CompiledSegment(Protocol):
    """A whole segment that runs in one call."""

    def forward(self, batch_size: int) -> None:
        """Run every op of the segment, in order, on the first ``batch_size`` rows."""


@runtime_checkable
class ProfiledSegment(CompiledSegment, Protocol):
    """A segment that can also tell where its time goes; what it computes is the same either way."""

    def profile(self, batch_size: int) -> Sequence[float]:
        """Run as :meth:`forward` does; return the seconds of each op, in the order they were given in."""
