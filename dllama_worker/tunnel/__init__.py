"""TLS for a program that has none: bytes are passed on between loopback and the network."""

__all__: list[str] = []
