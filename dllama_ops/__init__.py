"""Compute kernels of a Distributed-Llama node, as plugins."""
