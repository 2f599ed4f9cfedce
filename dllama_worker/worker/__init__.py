"""The worker: listens, is configured by a root, and serves it until it stops."""
