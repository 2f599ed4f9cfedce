"""Weights as other projects store them: what a block of ggml's types holds, decoded and quantised again."""

__all__: list[str] = []
