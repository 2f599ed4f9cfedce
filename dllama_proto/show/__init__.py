"""What a person or a program sees of a session: text, JSON, summaries, pictures."""

__all__: list[str] = []
