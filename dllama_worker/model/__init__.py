"""Model files on this machine: opened without copying, sliced, and written with random weights."""
