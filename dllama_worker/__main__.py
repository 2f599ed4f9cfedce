"""``python -m dllama_worker`` is ``dllama-worker``."""

import sys

from dllama_worker.worker.cli import main

sys.exit(main())
