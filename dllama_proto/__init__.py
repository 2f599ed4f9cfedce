"""The Distributed-Llama wire protocol: what the nodes of a cluster say to each other.

This light tier needs only NumPy: enums, float types, errors and the records. The parser lives in named
submodules (:mod:`dllama_proto.connection`, :mod:`dllama_proto.schemas`), so that importing an enum does
not load it.
"""
