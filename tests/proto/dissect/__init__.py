"""Tests of what makes sense of captures."""
