"""The command ``dllama-worker``, also ``python -m dllama_worker``: a worker, or ``doctor``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["doctor"]:
        from dllama_worker.doctor.cli import main as examine

        return examine(words[1:])
    from dllama_worker.worker.cli import main as serve

    return serve(words)


if __name__ == "__main__":
    sys.exit(main())
