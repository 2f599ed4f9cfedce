"""A Distributed-Llama node: protocol and kernels composed into a runtime."""
