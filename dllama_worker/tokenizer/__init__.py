"""Text to tokens and back: by the C++ program's rules, and by a model's own."""
