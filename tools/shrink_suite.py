"""Copy a suite of task files with sizes that the simulator can run: the modules stay, their numbers shrink.

    python tools/shrink_suite.py KernelBench/KernelBench OUT
    warpsmith bench OUT --simulate --no-compare --budget 1 --max-candidates 1

Integers in assignments at the level of the module (`batch_size = 128`, `shape = (64, 1024)`) become smaller: batches
two, other numbers at most 64. Modules whose layers fit each other by numbers written elsewhere break; the bench says
so of them, with the line.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

_BATCH = 2
# From this number on, that many are left.
_STEPS = ((1024, 64), (128, 32), (33, 16))


def shrunken(text: str) -> str:
    """Return the source of a task with smaller numbers. Raises SyntaxError where it is no Python."""
    tree = ast.parse(text)
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                _shrink(target, statement.value)
    return ast.unparse(tree) + "\n"


def _shrink(target: ast.expr, value: ast.expr) -> None:
    """Make the numbers that are given to a name smaller."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, its in zip(target.elts, value.elts, strict=True):
            _shrink(one, its)
        return
    if isinstance(target, ast.Name):
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                node.value = min(node.value, _BATCH) if "batch" in target.id else _less(node.value)


def _less(number: int) -> int:
    return next((left for least, left in _STEPS if number >= least), number)


def main() -> None:
    """Copy every task file below a folder."""
    parser = argparse.ArgumentParser(description="Copy a suite of tasks with smaller sizes.")
    parser.add_argument("suite", type=Path, help="folder of task files, or of levels of them")
    parser.add_argument("out", type=Path, help="where to write the copies")
    options = parser.parse_args()
    files = sorted(path for path in options.suite.rglob("*.py") if not path.name.startswith("_"))
    if not files:
        sys.exit(f"no task files below {options.suite}")
    for path in files:
        copy = options.out / path.relative_to(options.suite)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(shrunken(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(files)} task files in {options.out}")


if __name__ == "__main__":
    main()
