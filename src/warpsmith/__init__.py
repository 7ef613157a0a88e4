"""Warpsmith: PyTorch modules in, verified CUDA kernels out.

    result = warpsmith.optimize(module, example_inputs)
    result.write("softmax")

`import warpsmith` is quick; what needs PyTorch or a database is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from warpsmith.optimize import Result, optimize
from warpsmith.records import Candidate, Judged, Program, Task, Verdict

if TYPE_CHECKING:
    from warpsmith.archive import Archive
    from warpsmith.judge import Judge
    from warpsmith.settings import Settings
    from warpsmith.task import load_task, task_from_module

_LATER = {
    "Archive": "warpsmith.archive",
    "Judge": "warpsmith.judge",
    "Settings": "warpsmith.settings",
    "load_task": "warpsmith.task",
    "task_from_module": "warpsmith.task",
}

__all__ = [
    "Archive",
    "Candidate",
    "Judge",
    "Judged",
    "Program",
    "Result",
    "Settings",
    "Task",
    "Verdict",
    "load_task",
    "optimize",
    "task_from_module",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
