"""How fast kernels are on the shapes of models people run: the command ``dllama-ops bench``."""

from __future__ import annotations

from dllama_ops.bench.measure import Measurement, measure, memory_bandwidth
from dllama_ops.bench.workloads import Workload, workloads
from dllama_proto.model_shapes import MODEL_SHAPES as MODELS
from dllama_proto.model_shapes import ModelShape, model_shape

__all__ = [
    "MODELS",
    "Measurement",
    "ModelShape",
    "Workload",
    "measure",
    "memory_bandwidth",
    "model_shape",
    "workloads",
]
