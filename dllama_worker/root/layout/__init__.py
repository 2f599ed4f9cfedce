"""Turns a model and a partition into the configuration that every node is sent.

Everything is as the C++ root lays it out (``buildLlmNet``, ``llm.cpp``): the same pipes, buffers, segments
and ops, under the same names, in the same order. Modules, in the order of the segments: :mod:`.ends` (first
and last), :mod:`.attention`, :mod:`.feed_forward`; :mod:`.plan` puts them together.
"""

from dllama_proto.names import Pipe
from dllama_worker.root.layout.plan import Layout, build_layout, check_float_types, sync_type_of

__all__ = ["Layout", "Pipe", "build_layout", "check_float_types", "sync_type_of"]
