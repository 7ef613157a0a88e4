"""Run the built-in author's programs for every example on a GPU: are they right, and how long do they take?"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

import torch
from driver import Loaded, median_seconds

from warpsmith.author import Context
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.device.catalog import gpu
from warpsmith.device.protocol import target
from warpsmith.program import Builder, bind
from warpsmith.task import draw, evaluate, load_task


def programs(task: object, spec: object, count: int) -> list:
    """The default program and random ones, each once."""
    author, found = BuiltinAuthor(), {}
    for number in range(count):
        operator = "create" if number == 0 else "random"
        proposal = asyncio.run(author.propose(Context(task, spec, operator, (), number)))
        found.setdefault((proposal.program.key, proposal.tunables), proposal)
    return list(found.values())


def check(task: object, proposal: object, builder: Builder, spec: object, expected: dict, inputs: dict) -> dict:
    """Build, run and time one program; the error is relative to the largest expected magnitude."""
    build = builder.build(proposal.program, dict(proposal.tunables), target(spec))
    if not build.ok:
        return {"status": "build", "message": build.diagnostics[0].message if build.diagnostics else ""}
    tensors = {s.name: s for s in (*task.graph.arguments, *task.graph.results)}
    plan = bind(proposal.program.plan, tensors, dict(proposal.tunables), spec)
    held = {name: value.cuda().contiguous() for name, value in inputs.items()}
    for result in task.graph.results:
        dtype = getattr(torch, result.dtype)
        held[result.name] = torch.empty(max(result.nbytes, 1), dtype=torch.uint8, device="cuda").fill_(0xFF)
        held[result.name] = held[result.name].view(dtype)[: result.numel].view(result.shape)
    program = Loaded(build, plan, held)
    program()
    torch.cuda.synchronize()
    error = 0.0
    for name, due in expected.items():
        got, due = held[name].cpu().double(), due.double()
        scale = max(due.abs().nan_to_num(0, 0, 0).max().item(), 1e-30) if due.numel() else 1.0
        gap = (got - due).abs().max().item() if due.numel() else 0.0
        error = max(error, gap / scale) if gap == gap else float("nan")
    return {"status": "ok", "error": error, "seconds": median_seconds(program)}


def main() -> None:
    """Check all examples and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--gpu", default="H200")
    parser.add_argument("tasks", nargs="*", type=Path)
    options = parser.parse_args()
    spec = gpu(options.gpu)
    rows = []
    builder = Builder(tempfile.mkdtemp())
    for path in options.tasks or sorted(Path("examples").glob("*.py")):
        task = load_task(path)
        inputs = draw(task, "nominal", 1)
        expected = evaluate(task.graph, inputs, "float64")
        device_inputs = {name: value.cuda() for name, value in inputs.items()}
        eager = median_seconds(lambda: evaluate(task.graph, device_inputs, "task"))  # noqa: B023
        for proposal in programs(task, spec, options.count):
            row = check(task, proposal, builder, spec, expected, inputs)
            row |= {"task": task.name, "recipe": json.loads(proposal.recipe), "program": proposal.program.key}
            rows.append(row | {"eager": eager})
        mine = [r for r in rows if r["task"] == task.name]
        good = [r for r in mine if r["status"] == "ok" and r["error"] < 1e-4]
        best = min((r["seconds"] for r in good), default=float("nan"))
        worst = max((r.get("error", float("nan")) for r in mine if r["status"] == "ok"), default=float("nan"))
        first = mine[0].get("seconds", float("nan"))
        print(
            f"{task.name:16} programs {len(mine):3}  right {len(good):3}  largest error {worst:8.1e}  "
            f"eager {eager * 1e6:7.2f} µs  default {first * 1e6:7.2f} µs  best {best * 1e6:7.2f} µs"
        )
        for row in mine:
            if row not in good:
                print("   ", row["status"], row.get("error"), row.get("message", ""), json.dumps(row["recipe"])[:160])
        options.out.write_text(json.dumps(rows))
    builder.close()


if __name__ == "__main__":
    main()
