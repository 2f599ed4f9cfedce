"""``python -m dllama_ops`` is ``dllama-ops``."""

import sys

from dllama_ops.cli import main

sys.exit(main())
