"""Tests of what a person or a program sees of a session."""
