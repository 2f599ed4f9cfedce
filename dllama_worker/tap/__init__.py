"""A live tap between nodes: passes bytes on, and shows or records them."""

__all__: list[str] = []
