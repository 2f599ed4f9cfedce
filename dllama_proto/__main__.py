"""``python -m dllama_proto``: the command ``dllama-proto``."""

import sys

from dllama_proto.cli import main

if __name__ == "__main__":
    sys.exit(main())
