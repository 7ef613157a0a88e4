"""Two runs beside each other: which tasks were gained and lost, and by how much the others changed.

A ratio is the time in the first run over that in the second, so above 1 the second is faster. The two were not timed in
alternating blocks, so a difference counts only where the intervals of the two medians do not touch; and even that says
nothing about a GPU that was slower on another day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from warpsmith.bench.folder import Bench, load_bench
from warpsmith.bench.row import Row
from warpsmith.judge.statistics import geometric_mean


@dataclass(frozen=True, slots=True)
class Pair:
    """A task in both runs. `ratio` is None where the two times cannot be set against each other."""

    first: Row
    second: Row

    @property
    def comparable(self) -> bool:
        """Whether both rows are of the same text and passed, with times of one kind."""
        same = self.first.source_hash == self.second.source_hash and self.first.timing == self.second.timing
        return same and self.first.passed and self.second.passed

    @property
    def ratio(self) -> float | None:
        """Time in the first run over time in the second."""
        if not self.comparable or self.first.seconds is None or self.second.seconds is None:
            return None
        return self.first.seconds / self.second.seconds

    @property
    def beyond_doubt(self) -> bool:
        """Whether the intervals of the two medians are apart."""
        if not self.comparable or self.first.interval is None or self.second.interval is None:
            return False
        return self.first.interval[1] < self.second.interval[0] or self.second.interval[1] < self.first.interval[0]


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two runs. `pairs` are the tasks with a row in both, in the order of the first run."""

    names: tuple[str, str]
    first: Bench
    second: Bench
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]

    @property
    def gained(self) -> tuple[Pair, ...]:
        """Correct in the second run only."""
        return tuple(pair for pair in self.pairs if pair.second.passed and not pair.first.passed)

    @property
    def lost(self) -> tuple[Pair, ...]:
        """Correct in the first run only."""
        return tuple(pair for pair in self.pairs if pair.first.passed and not pair.second.passed)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratios of all tasks that are correct in both runs and comparable."""
        return tuple(pair.ratio for pair in self.pairs if pair.ratio is not None)

    @property
    def mean(self) -> float | None:
        """The geometric mean of `ratios`; None where there are none."""
        return geometric_mean(self.ratios) if self.ratios else None

    @property
    def middle(self) -> float | None:
        """The median of `ratios`; None where there are none."""
        return median(self.ratios) if self.ratios else None

    @property
    def faster(self) -> tuple[Pair, ...]:
        """Faster in the second run, beyond doubt."""
        return tuple(pair for pair in self.pairs if pair.beyond_doubt and (pair.ratio or 0.0) > 1.0)

    @property
    def slower(self) -> tuple[Pair, ...]:
        """Slower in the second run, beyond doubt."""
        return tuple(pair for pair in self.pairs if pair.beyond_doubt and (pair.ratio or 2.0) < 1.0)


def compare_benches(first: str | Path, second: str | Path) -> Contrast:
    """Set the runs in two folders beside each other. Raises UserError where a folder holds none."""
    return contrast(load_bench(first), load_bench(second), (str(first), str(second)))


def contrast(first: Bench, second: Bench, names: tuple[str, str]) -> Contrast:
    """Set two runs beside each other; `names` is what to call them."""
    others = {row.name: row for row in second.rows}
    pairs = tuple(Pair(row, others[row.name]) for row in first.rows if row.name in others)
    return Contrast(names, first, second, pairs, tuple(_warnings(first, second, pairs)))


def _warnings(first: Bench, second: Bench, pairs: tuple[Pair, ...]) -> Iterator[str]:
    """Say what makes the two differ beside what they found."""
    for what, one, other in _facts(first, second):
        if one != other:
            yield f"Different {what}: {one or 'none'} in the first run, {other or 'none'} in the second."
    edited = sum(pair.first.source_hash != pair.second.source_hash for pair in pairs)
    if edited:
        yield f"{edited} tasks have the same name but another text; they are not compared."
    alone = len(first.rows) + len(second.rows) - 2 * len(pairs)
    if alone:
        yield f"{alone} tasks have a row in one run only."
    if not pairs:
        yield "No task has a row in both runs."


def _facts(first: Bench, second: Bench) -> Iterator[tuple[str, str, str]]:
    yield "device", _joined(row.device for row in first.rows), _joined(row.device for row in second.rows)
    yield "size regime", first.record.regime, second.record.regime
    yield "baselines", _baselines(first), _baselines(second)
    yield "kind of timing", _joined(row.timing for row in first.rows), _joined(row.timing for row in second.rows)
    one, other = first.record.machine, second.record.machine
    yield "driver", one.driver, other.driver
    yield "PyTorch", one.torch, other.torch
    yield "CUDA", one.cuda, other.cuda
    theirs = dict(second.record.settings)
    for name, value in first.record.settings:
        yield name.replace("_", " "), value, theirs.get(name, "")


def _baselines(bench: Bench) -> str:
    return _joined(each.name for row in bench.rows for each in row.baselines)


def _joined(values: Iterator[str] | Iterator[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value}))
