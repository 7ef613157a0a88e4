"""Of which sizes a checkout of KernelBench is. Results of two regimes say nothing about each other.

*v0* (February 2025) has small sizes, so that launch overhead decides; *v0.1* (July 2025) has sizes that keep an H100
busy for milliseconds. The files have the same names, so some of them are looked into: module-level constants, read
from the text and never run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from warpsmith.bench.entries import Entry

Regime = Literal["v0", "v0.1", "other"]


@dataclass(frozen=True, slots=True)
class _Witness:
    """A file, by level and number, and what its constants are in either regime."""

    level: int
    number: int
    v0: tuple[tuple[str, int], ...]
    later: tuple[tuple[str, int], ...]


# Sizes as the files of KernelBench give them, at the release of February 2025 and at that of July 2025.
_WITNESSES = (
    _Witness(1, 1, (("N", 2048),), (("N", 4096),)),
    _Witness(1, 19, (("batch_size", 16), ("dim", 16384)), (("batch_size", 4096), ("dim", 393216))),
    _Witness(2, 1, (("in_channels", 3), ("out_channels", 16)), (("in_channels", 64), ("out_channels", 128))),
    _Witness(3, 1, (("batch_size", 1), ("input_size", 1000)), (("batch_size", 128), ("input_size", 16384))),
)


def regime(entries: Sequence[Entry]) -> Regime:
    """Return the size regime of the checkout that `entries` come from: `other` where it cannot be told.

    Also files that were not selected are looked into. Witnesses that contradict each other are `other` too.
    """
    roots = {entry.path.parent.parent for entry in entries if entry.level is not None}
    if not roots or any(entry.level is None for entry in entries):
        return "other"
    said = {_says(file, witness) for root in roots for witness in _WITNESSES for file in _files(root, witness)}
    return said.pop() if len(said) == 1 else "other"


def _files(root: Path, witness: _Witness) -> list[Path]:
    return sorted((root / f"level{witness.level}").glob(f"{witness.number}_*.py"))


def _says(file: Path, witness: _Witness) -> Regime:
    try:
        constants = _constants(ast.parse(file.read_text(encoding="utf-8")))
    except (OSError, SyntaxError, ValueError):
        return "other"
    if all(constants.get(name) == value for name, value in witness.v0):
        return "v0"
    return "v0.1" if all(constants.get(name) == value for name, value in witness.later) else "other"


def _constants(tree: ast.Module) -> Mapping[str, int]:
    """Return the module-level names whose values are integers or products of integers."""
    found: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and (value := _integer(node.value)) is not None:
            found |= {target.id: value for target in node.targets if isinstance(target, ast.Name)}
    return found


def _integer(node: ast.expr) -> int | None:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _integer(node.left), _integer(node.right)
        return left * right if left is not None and right is not None else None
    return None
