"""What must hold of an op before a kernel is made for it.

What any op needs is checked here; the spec of each op has what it needs beside
(:mod:`dllama_ops.reference.specs`). Kernels trust a context that passes; they check only what comes as data
with each batch: positions, tokens, indexes.
"""

from __future__ import annotations

from dllama_ops.checker import Checker, spec_of
from dllama_ops.kernel import OpContext
from dllama_ops.op_spec import OpSpec
from dllama_ops.reference.specs import OPS
from dllama_proto.enums import FloatType, op_quant_type

__all__ = ["check_context"]


def check_context(context: OpContext) -> list[str]:
    """Return every fault of an op's shapes, types and numbers; with none, a kernel may trust it.

    Each fault says what was expected and what came. Never raises, whatever the numbers are.
    """
    check = Checker(context)
    if context.key.code not in OPS:
        return [f"code: expected an op that is registered, got {context.key.code!r}"]
    spec = OPS.get(context.key.code)
    if _common(check, spec):
        spec.check(check)
    return check.faults


def _common(check: Checker, spec: OpSpec) -> bool:
    """Check what any op needs; False where looking further makes no sense."""
    context = check.context
    record, has_weight = spec.params, spec.weight_rows is not None
    sound = [
        check.positive(n_batches=context.n_batches, n_threads=context.n_threads),
        check.expect(
            isinstance(context.params, record), "params", record.__name__, type(context.params).__name__
        ),
        check.memory("input", context.input),
        check.memory("output", context.output, writable=True),
        check.expect(
            (context.weight is not None) == has_weight,
            "weight",
            "one" if has_weight else "none",
            spec_of(context.weight),
        )
        and (context.weight is None or check.weight_size(spec.weight_rows)),
    ]
    if not all(sound):
        return False
    weight_type = context.weight.float_type if context.weight else FloatType.UNK
    quant = op_quant_type(context.input.float_type, weight_type, context.output.float_type)
    expected = f"the types of {context.key.quant.name}"
    came = f"{context.input.float_type.name}, {weight_type.name}, {context.output.float_type.name}"
    return check.expect(quant is context.key.quant, "input, weight and output", expected, came)
