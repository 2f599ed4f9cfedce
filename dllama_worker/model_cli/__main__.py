"""``python -m dllama_worker.model_cli`` is ``dllama-model``."""

import sys

from dllama_worker.model_cli.cli import main

sys.exit(main())
