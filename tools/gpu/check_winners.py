"""Does a search that only saw estimates find programs that are faster on a GPU? Time its winners and the defaults.

    for file in examples/*.py; do warpsmith optimize $file --budget 60 --out found; done
    PYTHONPATH=src python tools/gpu/check_winners.py found

Each winner is checked against float64 PyTorch, and timed in turn with the built-in author's default program, so that
neither has the warmer clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from check_examples import check

from warpsmith.author import Context
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.device.catalog import gpu
from warpsmith.program import Builder, read_program
from warpsmith.records import Program
from warpsmith.task import draw, evaluate, load_task

ROUNDS = 5


@dataclass(frozen=True)
class Winner:
    """A program from a results folder, with the tunables that it won with."""

    program: Program
    tunables: tuple[tuple[str, int], ...]


def winner_in(folder: Path) -> Winner:
    """Read the winner of a search."""
    candidate = json.loads((folder / "verdict.json").read_text())["candidate"]
    return Winner(read_program(folder), tuple(candidate["tunables"].items()))


def main() -> None:
    """Print a row for each folder and the geometric mean of the gains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("found", type=Path, help="folder that holds one results folder for each example")
    parser.add_argument("--out", type=Path, default=Path("winners.json"))
    options = parser.parse_args()
    spec, builder, rows = gpu("H200"), Builder(tempfile.mkdtemp()), []
    for folder in sorted(path.parent for path in options.found.glob("*/verdict.json")):
        task = load_task(Path("examples") / f"{folder.name}.py")
        inputs = draw(task, "nominal", 1)
        expected = evaluate(task.graph, inputs, "float64")
        default = asyncio.run(BuiltinAuthor().propose(Context(task, spec, "create", (), 0)))
        runs = {"default": default, "winner": winner_in(folder)}
        timed = [{n: check(task, p, builder, spec, expected, inputs) for n, p in runs.items()} for _ in range(ROUNDS)]
        seconds = {name: statistics.median(one[name]["seconds"] for one in timed) for name in runs}
        error = max(one["winner"]["error"] for one in timed)
        gains = sorted(one["default"]["seconds"] / one["winner"]["seconds"] for one in timed)
        rows.append({"task": task.name, "error": error, "gain": gains[ROUNDS // 2], "gains": gains, **seconds})
        print(
            f"{task.name:16} default {seconds['default'] * 1e6:7.2f} µs  winner {seconds['winner'] * 1e6:7.2f} µs  "
            f"gain {gains[ROUNDS // 2]:.2f} ({gains[0]:.2f} to {gains[-1]:.2f})  error {error:.1e}"
        )
        options.out.write_text(json.dumps(rows, indent=1))
    builder.close()
    print(f"geometric mean of the gains {statistics.geometric_mean(row['gain'] for row in rows):.2f}")


if __name__ == "__main__":
    main()
