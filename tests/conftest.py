"""How property tests search: the same examples in every run, so that a red build is red again; what nodes inherit.

``pytest --hypothesis-profile=search`` looks for new ones instead.
"""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# Nodes that tests start share few cores with each other; threads that wait for others at a barrier cost time.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell lets what it runs in the background ignore Ctrl-C, and so would every process that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is no bug: how long one example takes is not judged.
settings.register_profile("repeat", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("repeat")
