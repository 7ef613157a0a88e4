"""The package's own source, parsed."""

from __future__ import annotations

import ast
from pathlib import Path

import warpsmith

ROOT = Path(warpsmith.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in FILES}


def name(path: Path) -> str:
    """Where a file lies in the package, for messages and test names."""
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """The dotted name of a file's module."""
    parts = ("warpsmith", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
