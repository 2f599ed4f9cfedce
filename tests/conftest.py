"""How property tests search: the same examples in every run, so that a red build is red again.

``pytest --hypothesis-profile=search`` looks for new ones instead.
"""

from __future__ import annotations

from hypothesis import settings

# A loaded machine is no bug: how long one example takes is not judged.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("repeat")
