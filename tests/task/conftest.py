from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from warpsmith.records import Task
from warpsmith.task import load_task

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a Python file and gives its path."""

    def writer(text: str, name: str = "model.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return str(path)

    return writer


@functools.cache
def _example(path: Path) -> Task:
    return load_task(path)


@pytest.fixture
def example() -> Callable[[Path], Task]:
    """Return a function that loads a task file once for the whole run."""
    return _example
