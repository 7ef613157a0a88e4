"""Copy a suite of task files with sizes that the simulator can run: the modules stay, their numbers shrink.

    python tools/shrink_suite.py KernelBench/KernelBench OUT
    warpsmith bench OUT --simulate --no-compare --budget 1 --max-candidates 1

Integers in assignments at the level of the module (`batch_size = 128`, `shape = (64, 1024)`) become smaller: batches
two, other numbers at most 64. Where the layers of a module then no longer fit each other, all are divided by the same
number instead, and where that does not fit either, only the batch is smaller. Each copy is loaded to see whether it
fits, which takes seconds; copies that are there already are left alone.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Callable
from pathlib import Path

from warpsmith.errors import TaskError
from warpsmith.task import load_task

_BATCH = 2
# From this number on, that many are left.
_STEPS = ((1024, 64), (128, 32), (33, 16))
# Numbers below this say how something is done, not how much of it.
_FEW = 16


def by_steps(number: int) -> int:
    """Leave few of many."""
    return next((left for least, left in _STEPS if number >= least), number)


def divided(by: int) -> Callable[[int], int]:
    """Leave sizes in proportion."""
    return lambda number: number // by if number >= _FEW and number % by == 0 else number


def as_it_is(number: int) -> int:
    """Leave all."""
    return number


WAYS: tuple[tuple[str, Callable[[int], int]], ...] = (
    ("by steps", by_steps), ("an eighth", divided(8)), ("a quarter", divided(4)), ("only the batch", as_it_is),
)  # fmt: skip


def shrunken(text: str, less: Callable[[int], int] = by_steps) -> str:
    """Return the source of a task with smaller numbers. Raises SyntaxError where it is no Python."""
    tree = ast.parse(text)
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                _shrink(target, statement.value, less)
    return ast.unparse(tree) + "\n"


def _shrink(target: ast.expr, value: ast.expr, less: Callable[[int], int]) -> None:
    """Make the numbers that are given to a name smaller."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, its in zip(target.elts, value.elts, strict=True):
            _shrink(one, its, less)
        return
    if isinstance(target, ast.Name):
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                node.value = min(node.value, _BATCH) if "batch" in target.id else less(node.value)


def copy(path: Path, to: Path) -> str:
    """Write the smallest copy of a task that still loads, and say how it was made; empty where none does."""
    text = path.read_text(encoding="utf-8")
    to.parent.mkdir(parents=True, exist_ok=True)
    for word, less in WAYS:
        to.write_text(shrunken(text, less), encoding="utf-8")
        try:
            load_task(to)
        except TaskError:
            continue
        return word
    to.unlink()
    return ""


def main() -> None:
    """Copy every task file below a folder."""
    parser = argparse.ArgumentParser(description="Copy a suite of tasks with smaller sizes.")
    parser.add_argument("suite", type=Path, help="folder of task files, or of levels of them")
    parser.add_argument("out", type=Path, help="where to write the copies")
    options = parser.parse_args()
    files = sorted(path for path in options.suite.rglob("*.py") if not path.name.startswith("_"))
    if not files:
        sys.exit(f"no task files below {options.suite}")
    missing = 0
    for number, path in enumerate(files, 1):
        to = options.out / path.relative_to(options.suite)
        if to.exists():
            continue
        word = copy(path, to)
        missing += not word
        if word != WAYS[0][0]:
            print(
                f"{number}/{len(files)} {path.relative_to(options.suite)}: {word or 'does not load in any size'}",
                flush=True,
            )
    print(f"{len(files) - missing} task files in {options.out}")
    if missing:
        sys.exit(1)


if __name__ == "__main__":
    main()
