"""Certificates for tests: two clusters, made once in a run, and one that is over."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from unittest.mock import patch

from dllama_worker.certificates import authority
from dllama_worker.node.tls import TlsFiles

__all__ = ["EXPIRED", "FOREIGN", "OURS", "files_of"]

OURS, FOREIGN, EXPIRED = "ours", "foreign", "expired"


@cache
def files_of(cluster: str, node: str = "node") -> TlsFiles:
    """Return the files of a node; those of EXPIRED are from the authority of OURS."""
    folder = _folder() / (OURS if cluster == EXPIRED else cluster)
    if cluster == EXPIRED:
        files_of(OURS)
        node = "expired"
        long_ago = datetime.now(UTC) - timedelta(days=30)
        with patch.object(authority, "_now", lambda: long_ago):
            authority.make_certificates(folder, [node], 1)
    else:
        authority.make_certificates(folder, [node], 30)
    return TlsFiles(folder / f"{node}.crt", folder / f"{node}.key", folder / "ca.crt")


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="certificates-")


def _folder() -> Path:
    return Path(_kept().name)
