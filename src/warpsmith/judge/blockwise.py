"""References of tasks that are too large to hold in float64: computed and compared one block of rows at a time.

Only the arguments of a draw are held. Whenever outputs are compared, the float64 answer, eager PyTorch's error and the
unit of rounding are computed for a block, compared with that block of the outputs, and let go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from warpsmith.judge.numerics import Comparison, compare
from warpsmith.judge.pool import FAMILY, Wrong, coarse_limit
from warpsmith.judge.references import refer
from warpsmith.records import FamilyResult, Mismatch, Task
from warpsmith.task import evaluate
from warpsmith.task.blocks import Cut, block_of, cut_of

BLOCK_BYTES = 1 << 29
"""Arguments and results of a block. A reference needs some thirty times as much for a moment."""


class Blocks:
    """A task cut into blocks of rows."""

    def __init__(self, task: Task, cut: Cut) -> None:
        self.task = task
        self._cut = cut
        graph = task.graph
        each = sum(spec.nbytes for spec in graph.arguments + graph.results) // cut.rows
        self._rows = max(1, min(cut.rows, BLOCK_BYTES // max(1, each)))
        self._tasks: dict[int, Task] = {}

    def starts(self) -> range:
        """The first row of each block."""
        return range(0, self._cut.rows, self._rows)

    def task_at(self, start: int) -> Task:
        """Return the task of the block that begins at row `start`."""
        rows = min(self._rows, self._cut.rows - start)
        if rows not in self._tasks:
            self._tasks[rows] = block_of(self.task, self._cut, rows)
        return self._tasks[rows]

    def take(
        self, values: Mapping[str, torch.Tensor], start: int, *, everything: bool = False
    ) -> dict[str, torch.Tensor]:
        """Return the rows of a block: of batched tensors, or, for outputs, of `everything`. Views."""
        return {
            name: value[start : start + self._rows] if everything or name in self._cut.batched else value
            for name, value in values.items()
        }

    def holds(self, arguments: Mapping[str, torch.Tensor]) -> bool:
        """Whether blocks give what the whole gives: the first and the last block of eager PyTorch against all of it."""
        whole = evaluate(self.task.graph, arguments, "task")
        for start in {0, self.starts()[-1]}:
            part = evaluate(self.task_at(start).graph, self.take(arguments, start), "task")
            for name, rows in self.take(whole, start, everything=True).items():
                if not torch.allclose(part[name].double(), rows.double(), rtol=1e-3, atol=1e-4, equal_nan=True):
                    return False
        return True


def blocks_for(task: Task, memory_bytes: int) -> Blocks | None:
    """Return how to cut a task whose references would not fit into `memory_bytes`; None where it need or can not be."""
    graph = task.graph
    widest = max(spec.numel for spec in graph.arguments + graph.results)
    needed = sum(spec.nbytes for spec in graph.arguments + graph.results) + 8 * 12 * widest
    if needed <= memory_bytes // 2:
        return None
    cut = cut_of(graph)
    return Blocks(task, cut) if cut is not None else None


def compare_blocks(
    blocks: Blocks, family: str, seed: int, arguments: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]
) -> Comparison:
    """Compare outputs with what is due, block by block. The worst block stands for its family."""
    worst: FamilyResult | None = None
    first: Comparison | None = None
    for start in blocks.starts():
        reference = refer(blocks.task_at(start), family, seed, blocks.take(arguments, start))
        found = compare(reference, blocks.take(outputs, start, everything=True), blocks.task.tolerance)
        result = found.result
        if worst is None or not (result.error / result.limit <= worst.error / worst.limit):
            worst = result
        if found.mismatch is not None and first is None:
            first = replace(found, mismatch=_moved(blocks, found.mismatch, start))
    assert worst is not None
    return Comparison(worst, first.reason if first else None, first.mismatch if first else None)


def _moved(blocks: Blocks, mismatch: Mismatch, start: int) -> Mismatch:
    """Say where in the whole output an element of a block stands."""
    index = (mismatch.index[0] + start, *mismatch.index[1:]) if mismatch.index else ()
    total = next(spec.numel for spec in blocks.task.graph.results if spec.name == mismatch.output)
    return replace(mismatch, index=index, total=total)


class BlockPool:
    """What `pool.Pool` is, for a task cut into blocks: one draw, whose answers are computed when they are needed.

    The limit is that of the first block.
    """

    def __init__(self, blocks: Blocks, seed: int, arguments: Mapping[str, torch.Tensor]) -> None:
        self._blocks = blocks
        self.seeds = [seed]
        self.arguments: Mapping[str, torch.Tensor] = {name: value[None] for name, value in arguments.items()}
        self.names = tuple(spec.name for spec in blocks.task.graph.results)
        task, tolerance = blocks.task_at(0), blocks.task.tolerance
        due = refer(task, FAMILY, self.seeds[0], blocks.take(arguments, 0)).due
        self._limits = {
            name: coarse_limit(each.unit, each.eager, each.expected, tolerance) for name, each in due.items()
        }

    def members(self, slots: int, series: int) -> torch.Tensor:
        """Every slot gets the only member."""
        return torch.zeros(slots, dtype=torch.int64, device=next(iter(self.arguments.values())).device)

    def wrong(self, got: Mapping[str, torch.Tensor], slots: list[int], members: torch.Tensor) -> Wrong | None:
        """Check the outputs of the called slots, block by block."""
        arguments = {name: value[0] for name, value in self.arguments.items()}
        for start in self._blocks.starts():
            task, part = self._blocks.task_at(start), self._blocks.take(arguments, start)
            expected = evaluate(task.graph, part, "float64")
            for slot in slots:
                outputs = self._blocks.take({name: value[slot] for name, value in got.items()}, start, everything=True)
                if not self._near(outputs, expected):
                    found = self._examine(task, part, outputs, start)
                    if found is not None:
                        return found
        return None

    def _near(self, outputs: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
        for name, due in expected.items():
            error = (outputs[name].double() - due).abs_()
            if not bool((error <= self._limits[name]).all()):
                return False
        return True

    def _examine(
        self, task: Task, part: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor], start: int
    ) -> Wrong | None:
        reference = refer(task, FAMILY, self.seeds[0], part)
        found = compare(reference, outputs, self._blocks.task.tolerance)
        if found.mismatch is None:
            return None
        return Wrong(found.reason or "wrong_value", _moved(self._blocks, found.mismatch, start), self.seeds[0])
