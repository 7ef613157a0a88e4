"""What do seconds buy, and what is an archive worth? The best time against the budget, with and without siblings.

    python benchmarks/budget.py [--budgets 1 10 60 300] [--teach 60] [--seeds 1] [--examples softmax ...]

For each example two siblings are optimized first, the same module at other sizes, for `--teach` seconds each. Then
the example itself is, with each budget and seed, twice: beginning from nothing (`alone`), and from a copy of the
archive that knows its siblings (`taught`). Every search is one call of `warpsmith.optimize` with an archive and a cache
of compiled programs of its own, so none gains by another. A budget counts from the call on; what it takes to start
Python and to import PyTorch does not.

Runs on the GPU of this machine, with the first extent of every input 64 times as large as in the examples; `--simulate`
takes the simulator and the examples as they are, where times are estimates. Every search is written down when it is
done, to benchmarks/results/budget.json (with `--simulate` into the folder given by `--into`), and the same command goes
on from there. All budgets, four examples and one seed take about an hour.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from results_file import Results, begin
from rich.console import Console
from rich.table import Table

import warpsmith
from warpsmith.device.choose import Choice
from warpsmith.errors import NothingPassed
from warpsmith.optimize import Result
from warpsmith.records import Task
from warpsmith.settings import Settings, load_settings
from warpsmith.task import task_from_module

EXAMPLES = Path(__file__).parent.parent / "examples"
LARGER = 64
"""How many times as large the first extent is on a GPU, where the examples take no time."""

ARMS = ("alone", "taught")

Size = tuple[tuple[int, ...], tuple[int, ...]]
"""Arguments of the module, and the shape of its input."""

SIZES: Mapping[str, tuple[Size, Size, Size]] = {
    "softmax": (((), (128, 1000)), ((), (64, 640)), ((), (96, 2048))),
    "layernorm": (((768,), (4, 32, 768)), ((512,), (2, 32, 512)), ((1024,), (4, 24, 1024))),
    "linear_gelu": (((96, 192), (64, 96)), ((64, 128), (48, 64)), ((128, 256), (64, 128))),
    "conv2d_relu": (((8, 16), (2, 8, 30, 30)), ((8, 12), (2, 8, 20, 20)), ((16, 16), (1, 16, 28, 28))),
}
"""Of each example: the size that is searched for, then two siblings to learn from."""


def task_of(example: str, size: Size, larger: int) -> Task:
    """Return the task of an example's module at some size."""
    spec = importlib.util.spec_from_file_location(example, EXAMPLES / f"{example}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments, shape = size
    torch.manual_seed(0)
    x = torch.randn(shape[0] * larger, *shape[1:])
    return task_from_module(module.Model(*arguments).eval(), (x,))


class Place:
    """A folder for one search: its archive and its cache, gone when it is done."""

    def __init__(self, choice: Choice, archive: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warpsmith-budget-")
        self.archive = Path(self._folder.name) / "archive.db"
        self._choice = choice
        if archive is not None:
            shutil.copy(archive, self.archive)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def settings(self, budget: float, seed: int) -> Settings:
        """Return the settings of a search here."""
        return load_settings(
            archive=str(self.archive),
            cache=Path(self._folder.name) / "cache",
            device=self._choice.spec.name,
            simulate=not self._choice.measures,
            budget=budget,
            seed=seed,
        )


def search(task: Task, place: Place, budget: float, seed: int) -> dict[str, Any]:
    """Optimize once; return what is kept of it. Times in seconds; None where nothing passed in time."""
    try:
        result = warpsmith.optimize(task, settings=place.settings(budget, seed))
    except NothingPassed as error:
        return {"best": None, "course": [], "judged": 0, "source": None, "problem": str(error)}
    return row_of(result)


def row_of(result: Result) -> dict[str, Any]:
    """What is kept of a search. `inherited` counts what was carried over, `winner` lists by which way the best came."""
    timing = result.best.verdict.timing
    assert timing is not None
    return {
        "best": result.best.seconds,
        "first": result.course[0].seconds if result.course else None,
        "course": [[step.spent, step.seconds] for step in result.course],
        "judged": len(result.history),
        "inherited": sum(each.candidate.lineage.operator == "inherit" for each in result.history),
        "winner": [each.candidate.lineage.operator for each in result.lineage],
        "source": timing.source,
        "bound": result.bound.seconds,
        "seconds": result.seconds,
        "stopped": result.stop_reason,
    }


def teach(example: str, choice: Choice, seconds: float, larger: int, place: Place) -> None:
    """Optimize the siblings of an example into one archive."""
    for size in SIZES[example][1:]:
        search(task_of(example, size, larger), place, seconds, 0)


def measure(example: str, choice: Choice, options: argparse.Namespace, results: Results, larger: int) -> None:
    """Run every search on an example that is not in the results yet."""
    known = results.document.setdefault("searches", {})
    due = [
        (arm, budget, seed)
        for seed in range(options.seeds)
        for budget in options.budgets
        for arm in ARMS
        if key_of(example, arm, budget, seed) not in known
    ]
    if not due:
        return
    task = task_of(example, SIZES[example][0], larger)
    with Place(choice) as school:
        if any(arm == "taught" for arm, _, _ in due):
            teach(example, choice, options.teach, larger, school)
        for arm, budget, seed in due:
            with Place(choice, school.archive if arm == "taught" else None) as place:
                row = search(task, place, budget, seed)
            key = key_of(example, arm, budget, seed)
            results.document["searches"][key] = row
            results.save()
            print(f"{key}: {micro(row['best'])} µs, {row['judged']} judged")


def key_of(example: str, arm: str, budget: float, seed: int) -> str:
    """The name of a search in the file."""
    return f"{example} {arm} {budget:g} s seed {seed}"


def micro(seconds: float | None) -> str:
    """A time in microseconds, or a dash."""
    return "–" if seconds is None else f"{1e6 * seconds:.3f}"


def table_of(rows: Mapping[str, Any], examples: Sequence[str], budgets: Sequence[float], seeds: int) -> Table:
    """The comparison: medians over seeds."""
    table = Table(title="best time, µs (median over seeds)", expand=False)
    table.add_column("example", no_wrap=True)
    for column in ("budget", "alone", "taught", "gain", "first alone", "first taught", "judged"):
        table.add_column(column, justify="right")
    gains: dict[float, list[float]] = {budget: [] for budget in budgets}
    for example in examples:
        for budget in budgets:
            found = {
                arm: [row for seed in range(seeds) if (row := rows.get(key_of(example, arm, budget, seed)))]
                for arm in ARMS
            }
            best, first = ({arm: middle(found[arm], name) for arm in ARMS} for name in ("best", "first"))
            alone, taught = best["alone"], best["taught"]
            gain = alone / taught if alone and taught else None
            if gain is not None:
                gains[budget].append(gain)
            table.add_row(
                example,
                f"{budget:g} s",
                micro(alone),
                micro(taught),
                f"{gain:.2f}×" if gain else "–",
                micro(first["alone"]),
                micro(first["taught"]),
                " / ".join(f"{statistics.median(row['judged'] for row in found[arm]):g}" for arm in ARMS if found[arm]),
            )
    for budget, each in gains.items():
        mean = f"{math.exp(statistics.fmean(map(math.log, each))):.2f}×" if each else "–"
        table.add_row("mean", f"{budget:g} s", "", "", mean, "", "", "")
    return table


def middle(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The median of a figure over the searches in which something passed."""
    found = [row[name] for row in rows if row.get(name) is not None]
    return statistics.median(found) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description="The best time against the budget, with and without siblings.")
    parser.add_argument("--examples", nargs="+", choices=sorted(SIZES), default=sorted(SIZES))
    parser.add_argument("--budgets", nargs="+", type=float, default=[1.0, 10.0, 60.0, 300.0])
    parser.add_argument("--teach", type=float, default=60.0, help="seconds for each sibling")
    parser.add_argument("--seeds", type=int, default=1)
    options, choice = begin(parser)
    larger = LARGER if choice.measures else 1
    folder = options.into
    forget = ("searches",) if options.anew else ()
    results = Results("budget", choice, {"teach": options.teach, "larger": larger}, folder, forget)
    console = Console()
    for example in options.examples:
        measure(example, choice, options, results, larger)
    rows = results.document.get("searches", {})
    console.print(table_of(rows, options.examples, options.budgets, options.seeds))
    results.finish()


if __name__ == "__main__":
    main()
