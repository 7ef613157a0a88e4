"""Tasks: a module made a pure function, its readable form, its reference, its inputs and its bound."""

from warpsmith.task.admission import Admission, admit
from warpsmith.task.bounds import bound
from warpsmith.task.evaluate import eager, evaluate
from warpsmith.task.inputs import FAMILIES, draw, families_for
from warpsmith.task.load import load_task, task_from_module

__all__ = [
    "Admission",
    "FAMILIES",
    "admit",
    "bound",
    "draw",
    "eager",
    "evaluate",
    "families_for",
    "load_task",
    "task_from_module",
]
