"""What an op's description and the conformance kit share: a case of one op, and a random one in the making."""

__all__: list[str] = []
