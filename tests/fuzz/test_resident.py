"""Memory that a config takes is memory that was counted: the known attacks, and a few of many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_config_takes_more_memory_than_its_limit() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.resident", "slice", "8"],
        cwd=_REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stdout + ended.stderr
