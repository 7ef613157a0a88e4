"""How good is the estimate? Simulate programs that were timed on a GPU, and compare.

    python benchmarks/estimate_vs_measured.py [benchmarks/results/h200_examples.json]

The measured times come from tools/gpu/check_examples.py: the built-in author's default program and random ones for
every example, replayed as CUDA graphs. Programs that today's author writes differently are left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from warpsmith.author.builtin import Recipe, compile_graph
from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.program import Builder, bind
from warpsmith.task import draw, load_task

HOME = Path(__file__).parent


def estimates(rows: list[dict], device: str) -> dict[str, list[tuple[float, float]]]:
    """Return (measured, estimated) seconds by task."""
    spec, simulator = gpu(device), Simulator(gpu(device))
    builder = Builder(tempfile.mkdtemp())
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    tasks: dict[str, object] = {}
    for row in rows:
        task = tasks.setdefault(row["task"], load_task(HOME.parent / "examples" / f"{row['task']}.py"))
        compiled = compile_graph(task.graph, Recipe.from_json(json.dumps(row["recipe"])), spec)
        if compiled.program.key != row["program"]:
            continue
        build = builder.build(compiled.program, dict(compiled.tunables), "sm_90")
        tensors = {s.name: s for s in (*task.graph.arguments, *task.graph.results)}
        plan = bind(compiled.program.plan, tensors, dict(compiled.tunables), spec)
        execution = simulator.run(build, plan, draw(task, "nominal", 1), task.graph.results, fill=1)
        pairs[row["task"]].append((row["seconds"], simulator.time(build, plan, execution.counters).median))
    builder.close()
    return pairs


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value."""
    return np.argsort(np.argsort(values))


def main() -> None:
    """Print a row for each task and one for all."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HOME / "results" / "h200_examples.json"
    record = json.loads(path.read_text())
    pairs = estimates(record["programs"], record["device"])
    left_out = len(record["programs"]) - sum(map(len, pairs.values()))
    print(f"{'task':16} programs  rank corr.  estimated/measured  measured time of the one estimated best / best")
    for task, found in pairs.items():
        measured, estimated = (np.array(column) for column in zip(*found, strict=True))
        rho = np.corrcoef(ranks(measured), ranks(estimated))[0, 1] if len(found) > 2 else float("nan")
        pick = measured[estimated.argmin()] / measured.min()
        print(f"{task:16} {len(found):8}  {rho:10.2f}  {np.median(estimated / measured):18.2f}  {pick:.2f}")
    measured, estimated = np.array([pair for found in pairs.values() for pair in found]).T
    ratio, logs = estimated / measured, np.log([measured, estimated])
    within = {factor: np.mean((ratio < factor) & (ratio > 1 / factor)) for factor in (1.5, 2.0)}
    print(f"all: {len(ratio)} programs, {left_out} left out; correlation of logarithms {np.corrcoef(logs)[0, 1]:.3f}")
    print("within a factor of " + ", ".join(f"{factor:g}: {share:.0%}" for factor, share in within.items()))


if __name__ == "__main__":
    main()
