"""``python -m dllama_worker`` is ``dllama-worker``."""

import sys

from dllama_worker.cli import main

sys.exit(main())
