"""The conformance kit: what every kernel must pass, whoever wrote it.

For the kernel of a plugin of your own::

    key = KernelKey(OpCode.SHIFT, OpQuantType.F32_F32_F32)
    for seed in range(20):
        assert check_kernel(MyKernel, random_case(key, seed)) == []
        for case in bad_data_cases(key, seed):
            assert check_refusal(MyKernel, case) == []

A case is one op with its memory before and after (:class:`OpCase`): recorded from another implementation,
or made up at random with the NumPy reference's result.
"""

from dllama_ops.cases.case import Batch, BoundCase, BoundSegment, Memory, OpCase, SegmentCase, View
from dllama_ops.cases.draft import Draft
from dllama_ops.testing.checks import check_kernel, check_refusal
from dllama_ops.testing.golden import golden_case, golden_cases, golden_names
from dllama_ops.testing.memory_checks import check_memory_need
from dllama_ops.testing.random_cases import bad_data_cases, random_case, reference_kernels
from dllama_ops.testing.random_segments import SEGMENT_KINDS, SegmentKind, random_segment
from dllama_ops.testing.segment_checks import CompileSegment, check_in_segment, check_segment
from dllama_ops.testing.tolerances import EXACT, Tolerance, tolerance_of

__all__ = [
    "Batch",
    "BoundCase",
    "BoundSegment",
    "CompileSegment",
    "Draft",
    "EXACT",
    "Memory",
    "OpCase",
    "SEGMENT_KINDS",
    "SegmentCase",
    "SegmentKind",
    "Tolerance",
    "View",
    "bad_data_cases",
    "check_in_segment",
    "check_kernel",
    "check_memory_need",
    "check_refusal",
    "check_segment",
    "golden_case",
    "golden_cases",
    "golden_names",
    "random_case",
    "random_segment",
    "reference_kernels",
    "tolerance_of",
]
