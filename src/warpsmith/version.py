"""Which Warpsmith this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Return the version of the installed package; `source` where it runs from a source tree instead."""
    try:
        return version("warpsmith")
    except PackageNotFoundError:
        return "source"
