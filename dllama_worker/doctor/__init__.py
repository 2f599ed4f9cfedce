"""``dllama-worker doctor``: whether this machine can be a node, and what would make it a better one."""
