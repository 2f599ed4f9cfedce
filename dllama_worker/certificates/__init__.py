"""Certificates for the nodes of one cluster."""

__all__: list[str] = []
