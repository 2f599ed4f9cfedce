"""What every node is, worker and root alike: links, memory, kernels, syncs, and the forward that runs them."""
