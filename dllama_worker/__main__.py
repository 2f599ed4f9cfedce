"""The command ``dllama-worker``, also ``python -m dllama_worker``: a worker, or one of its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dllama_proto.exit_codes import run_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    commands = {"doctor": _doctor, "certificates": _certificates, "tunnel": _tunnel}
    if words and words[0] in commands:
        return run_command(f"dllama-worker {words[0]}", lambda: commands[words[0]](words[1:]))
    return run_command("dllama-worker", lambda: _worker(words))


def _doctor(words: Sequence[str]) -> int:
    from dllama_worker.doctor.cli import main as examine

    return examine(words)


def _certificates(words: Sequence[str]) -> int:
    from dllama_worker.certificates.cli import main as make_certificates

    return make_certificates(words)


def _tunnel(words: Sequence[str]) -> int:
    from dllama_worker.tunnel.cli import main as pass_on

    return pass_on(words)


def _worker(words: Sequence[str]) -> int:
    from dllama_worker.worker.cli import main as serve

    return serve(words)


if __name__ == "__main__":
    sys.exit(main())
