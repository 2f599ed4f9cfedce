"""``python -m dllama_worker.root`` is ``dllama-root``."""

import sys

from dllama_worker.root.cli import main

sys.exit(main())
