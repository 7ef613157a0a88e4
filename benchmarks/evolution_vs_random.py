"""Does evolution earn its place? Its best against the best of as many random recipes.

    python benchmarks/evolution_vs_random.py [--candidates 60] [--seeds 3] [example ...]

For each example and seed two searches run with the same number of judged candidates, the same judge and the same
author: evolution as `warpsmith optimize` runs it, and the built-in author's operator `random`, which draws every gene
and every tunable without looking. What is compared is the best estimated time of each. A candidate that fails counts
as judged in both, duplicates count in neither. Where evolution runs out of new candidates early, random gets as few.

Evolution begins with the author's defaults, a random search does not; so the time of the defaults is shown too.
Prints a table and writes benchmarks/results/evolution_vs_random.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from rich.console import Console
from rich.table import Table

from warpsmith.archive import Archive
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.cluster import LocalExecutor
from warpsmith.device.catalog import gpu
from warpsmith.evolve import Arm, Evolution, Executor, Problem, turn
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import Candidate, Verdict
from warpsmith.settings import usable_cores, user_cache
from warpsmith.task import bound, load_task

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
RESULTS = HERE / "results" / "evolution_vs_random.json"
RANDOM = (Arm("builtin", "random", 0),)


class Remembering:
    """Judges each candidate once for all searches on a task; a verdict depends on nothing else."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._verdicts: dict[str, Verdict] = {}

    async def judge(self, candidate: Candidate) -> Verdict:
        """Return the verdict, from memory if there is one."""
        if candidate.key not in self._verdicts:
            self._verdicts[candidate.key] = await self._executor.judge(candidate)
        return self._verdicts[candidate.key]

    def close(self) -> None:
        """Release the workers."""
        self._executor.close()


@dataclass(frozen=True)
class Duel:
    """One seed on one example. Times in seconds, estimated; infinite where nothing passed."""

    seed: int
    judged: int
    defaults: float
    evolution: float
    evolution_passed: int
    random: float
    random_passed: int


@dataclass(frozen=True)
class Row:
    """One example."""

    example: str
    bound: float
    duels: tuple[Duel, ...]

    @property
    def gain(self) -> float:
        """How many times faster evolution's best is than random's: the median over seeds."""
        return statistics.median(duel.random / duel.evolution for duel in self.duels)

    @property
    def wins(self) -> int:
        """Seeds on which evolution's best is the faster one by more than a thousandth."""
        return sum(duel.evolution < 0.999 * duel.random for duel in self.duels)


def search(problem: Problem, executor: Executor, candidates: int, seed: int, arms: tuple[Arm, ...] | None) -> Evolution:
    """Run one search with an archive of its own, limited by candidates alone."""
    dial = replace(turn(60.0, candidates), seconds=math.inf, grace=math.inf, patience=10**6)
    with tempfile.TemporaryDirectory() as folder, Archive.open(Path(folder) / "archive.db") as archive:
        run = archive.start_run(problem.task, "{}")
        evolution = Evolution(
            problem, [BuiltinAuthor()], executor, archive, run, dial, seed=seed, judging=usable_cores(), arms=arms
        )

        async def main() -> None:
            if arms is None:
                await evolution.translate()
            await evolution.run()

        anyio.run(main)
    return evolution


def duel(problem: Problem, executor: Executor, candidates: int, seed: int) -> Duel:
    """Run both searches with one seed."""
    evolved = search(problem, executor, candidates, seed, None)
    judged = evolved.ledger.judged
    drawn = search(problem, executor, judged, seed, RANDOM)
    best, blind = evolved.population.best, drawn.population.best
    return Duel(
        seed=seed,
        judged=judged,
        defaults=evolved.population.history[0].seconds,
        evolution=best.seconds if best else math.inf,
        evolution_passed=sum(each.verdict.passed for each in evolved.population.history),
        random=blind.seconds if blind else math.inf,
        random_passed=sum(each.verdict.passed for each in drawn.population.history),
    )


def compare(example: Path, device: str, candidates: int, seeds: int) -> Row:
    """Run all seeds on one example."""
    spec = gpu(device)
    task = load_task(example)
    problem = Problem(task, spec, bound(task, spec), JUDGE_VERSION)
    executor = Remembering(LocalExecutor(task, spec.name, usable_cores(), cache_dir=user_cache()))
    try:
        duels = tuple(duel(problem, executor, candidates, seed) for seed in range(seeds))
    finally:
        executor.close()
    return Row(example.stem, problem.bound.seconds, duels)


def table_of(rows: list[Row]) -> Table:
    """The comparison, one example a line; medians over seeds, in microseconds."""
    table = Table("example", title="best estimated time, µs (median over seeds)")
    for column in ("bound", "defaults", "random", "evolution", "gain", "seeds won", "judged"):
        table.add_column(column, justify="right")
    for row in rows:
        times = [
            statistics.median(getattr(each, name) for each in row.duels) for name in ("defaults", "random", "evolution")
        ]
        table.add_row(
            row.example,
            *(f"{1e6 * time:.2f}" for time in (row.bound, *times)),
            f"{row.gain:.2f}×",
            f"{row.wins} of {len(row.duels)}",
            str(max(each.judged for each in row.duels)),
        )
    return table


def finite(value: Any) -> Any:
    """Replace infinities, which JSON cannot hold, by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Evolution against as many random recipes.")
    parser.add_argument("examples", nargs="*", help="names of examples; all by default")
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="H200")
    chosen = parser.parse_args()
    console = Console()
    names = chosen.examples or sorted(path.stem for path in EXAMPLES.glob("*.py"))
    rows = []
    for name in names:
        rows.append(compare(EXAMPLES / f"{name}.py", chosen.device, chosen.candidates, chosen.seeds))
        console.print(table_of(rows[-1:]))
    console.print(table_of(rows))
    better = sum(row.wins > len(row.duels) / 2 for row in rows)
    console.print(f"evolution is better on {better} of {len(rows)} examples, by the majority of seeds")
    if not chosen.examples:
        RESULTS.parent.mkdir(exist_ok=True)
        document = {"device": gpu(chosen.device).name, "judge": JUDGE_VERSION, "candidates": chosen.candidates}
        document |= {"rows": [asdict(row) | {"gain": row.gain, "wins": row.wins} for row in rows]}
        RESULTS.write_text(json.dumps(finite(document), indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
