"""GGUF, the file format of llama.cpp, as a source of models."""
