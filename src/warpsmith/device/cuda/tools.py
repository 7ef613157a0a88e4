"""Finds NVIDIA's tools and libraries: on the search path, in a CUDA toolkit, or in NVIDIA's wheels beside us."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

TOOLKITS = ("/usr/local/cuda", "/opt/cuda")
NSIGHT = Path("/opt/nvidia/nsight-compute")
"""Where Nsight Compute installs itself when it comes without a toolkit, one folder for each version."""


def find(name: str) -> str | None:
    """Return the path of a program such as `ncu`, or None where it is not installed."""
    # A wheel that holds a whole tool, with the launcher that it needs, has a folder of its name. Older wheels of
    # compute-sanitizer hold the program alone, which reports every program as ended before its first call.
    whole = _wheels(name)
    folders = [*(folder / "bin" for folder in toolkits()), *sorted(NSIGHT.glob("*"), reverse=True), *whole]
    places = (shutil.which(name, path=str(folder)) for folder in folders)
    return shutil.which(name) or next((place for place in places if place), None)


def toolkits() -> Iterator[Path]:
    """Yield the folders where a CUDA toolkit may be: those the environment names, then the usual ones."""
    named = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"))
    yield from (Path(folder) for folder in dict.fromkeys((*named, *TOOLKITS)) if folder)


def libraries(pattern: str) -> Iterator[Path]:
    """Yield files called `pattern` in the wheels, then in the toolkits."""
    within = ("lib64", "lib", "extras/CUPTI/lib64")
    folders = [*_wheels("lib"), *(folder / part for folder in toolkits() for part in within)]
    for folder in folders:
        yield from sorted(folder.glob(pattern), reverse=True)


def _wheels(part: str) -> list[Path]:
    """Return all folders called `part` of NVIDIA's wheels, which share the namespace package `nvidia`."""
    spec = importlib.util.find_spec("nvidia")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return [folder for place in places for folder in sorted(Path(place).glob(f"*/{part}"), reverse=True)]
