"""Searches for what breaks the parser, the binder or a running worker: ``make fuzz MINUTES=10``.

Every input is what a root might say on one link, as bytes, so one corpus (``corpus/``) serves all targets. Inputs
are recordings of C++ roots, changed at random: as records, so that they still look valid, or as bytes.
"""
