"""How fast is each kernel family, for which of its genes, and how far is that from PyTorch and from the roof?

    python benchmarks/kernel_families.py [CASE ...] [--workers 10] [--variants 24] [--vary algorithm --vary feed ...]

Each case is one module at one size, judged in full: the defaults of the built-in author, every choice of every gene
of its largest region changed by itself, and every value of its tunables, up to `--variants` programs; with `--vary`
only genes and tunables of these names, one after the other. The module itself is timed eagerly and as a CUDA graph.
Prints a line for each program, fastest first, and at the end one for each case: best time, its ratio to the faster of
the two baselines, and its share of the speed of light; where memory limits it, also its share of what a copy reaches,
if the case `copy` was measured.
Writes benchmarks/results/kernel_families.json after each case; what it holds for the same sources, card and options
is not measured again. `--simulate` tries this script on tiny sizes without a GPU: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
from judge_speed import executing, judge_all
from kernel_cases import CASES, task_of
from results_file import Results, begin, card

from warpsmith.author.builtin import Recipe, compile_graph
from warpsmith.device.choose import Choice
from warpsmith.errors import WarpsmithError
from warpsmith.judge.baseline import Baselines
from warpsmith.pipeline import most_workers
from warpsmith.records import Candidate, GpuSpec, Lineage, Task, Verdict, frozen
from warpsmith.settings import usable_cores
from warpsmith.task import bound

_BASELINE_SECONDS = 60.0
_SERIES = 10


def variants(task: Task, spec: GpuSpec, most: int, vary: Sequence[str] = ()) -> Iterator[tuple[str, Candidate]]:
    """Yield programs with a word on what each changes: defaults, algorithms, other genes, then tunables.

    Only those named in `vary`, in that order, if any are.
    """
    start = compile_graph(task.graph, Recipe(), spec, task.tolerance)
    region = max(start.genes, key=lambda name: len(start.genes[name]))
    genes = sorted(start.genes[region], key=lambda gene: gene.name != "algorithm")
    recipes = [("defaults", start.recipe)]
    recipes += [
        (f"{gene.name} = {choice}", start.recipe.choosing(region, gene.name, choice))
        for gene in genes
        for choice in gene.choices
        if choice != start.recipe.genes[region][gene.name]
    ]
    recipes += [
        (
            f"{name} = {value}",
            Recipe(start.recipe.cuts, start.recipe.unfused, start.recipe.genes, frozen({name: value})),
        )
        for name, values in start.program.plan.tunables
        for value in values[1:]
    ]
    if vary:
        named = [(word, recipe) for name in vary for word, recipe in recipes if word.split(" = ")[0] == name]
        recipes = [recipes[0], *named]
    seen: set[str] = set()
    for word, recipe in recipes:
        compiled = compile_graph(task.graph, recipe, spec, task.tolerance)
        lineage = Lineage("builtin", "create", recipe=compiled.recipe.to_json())
        candidate = Candidate(task.key, compiled.program, compiled.tunables, lineage)
        if candidate.key not in seen and len(seen) < most:
            seen.add(candidate.key)
            yield word, candidate


def judged(task: Task, candidates: list[Candidate], workers: int, choice: Choice) -> list[Verdict]:
    """Judge all, several at once: they compile side by side, and take turns on the GPU."""
    workers = min(workers, most_workers(task, choice.spec))
    with executing(task, workers, choice) as executor:
        found = {verdict.candidate_key: verdict for verdict, _ in anyio.run(judge_all, executor, candidates)}
    return [found[candidate.key] for candidate in candidates]


def baselines(task: Task, choice: Choice) -> dict[str, float | str]:
    """Seconds of the module, eager and as a graph; a sentence where it could not be timed."""
    if not choice.measures:
        return {}
    with Baselines(task, rotate_bytes=5 * choice.spec.l2_bytes, seconds=_BASELINE_SECONDS) as others:
        found = {name: others.measure("eager", graph, _SERIES) for name, graph in (("eager", False), ("graph", True))}
    return {name: one.timing.median if one.timing else one.problem for name, one in found.items()}


def measured(name: str, options: argparse.Namespace, choice: Choice, folder: Path) -> dict[str, Any]:
    """Measure one case."""
    task = task_of(name, folder, tiny=not choice.measures)
    words, candidates = zip(*variants(task, choice.spec, options.variants, options.vary), strict=True)
    rows = []
    for word, candidate, verdict in zip(
        words, candidates, judged(task, list(candidates), options.workers, choice), strict=True
    ):
        row: dict[str, Any] = {"change": word, "tunables": dict(candidate.tunables)}
        if verdict.timing is not None:
            row |= {"seconds": verdict.timing.median, "interval": list(verdict.timing.interval)}
        if verdict.failure is not None:
            row |= {"failure": verdict.failure.reason, "message": verdict.failure.message[:200]}
        rows.append(row)
    rows.sort(key=lambda row: row.get("seconds", float("inf")))
    light = bound(task, choice.spec)
    return {
        "rows": rows,
        "baselines": baselines(task, choice),
        "bound": light.seconds,
        "limit": light.limit,
        "variants": options.variants,
        "vary": options.vary,
        "card": card(choice),
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Print every program of a case."""
    print(f"\n{name}: bound {found['bound'] * 1e6:.1f} us ({found['limit']}), baselines {found['baselines']}")
    for row in found["rows"]:
        time = f"{row['seconds'] * 1e6:10.1f} us" if "seconds" in row else f"{row['failure']:>13}"
        print(f"  {time}  {row['change']}  {row.get('message', '')[:120]}")


def copied_share(copy: dict[str, Any] | None) -> float | None:
    """Share of the bound that the fastest copy reaches, ours or PyTorch's: what memory really gives."""
    if copy is None or not copy["baselines"]:
        return None
    timed = [row["seconds"] for row in copy["rows"] if "failure" not in row and "seconds" in row]
    timed += [seconds for seconds in copy["baselines"].values() if isinstance(seconds, float)]
    return float(copy["bound"] / min(timed)) if timed else None


def summary(name: str, found: dict[str, Any], roof: float | None) -> str:
    """One line: the fastest program that passed, against the faster baseline, the bound, and a copy as its `roof`."""
    passed = [row for row in found["rows"] if "failure" not in row and "seconds" in row]
    if not passed:
        return f"{name:28} none of {len(found['rows'])} passed"
    best = passed[0]
    others = [seconds for seconds in found["baselines"].values() if isinstance(seconds, float)]
    ratio = f"{min(others) / best['seconds']:6.2f} x" if others else "       -"
    share = found["bound"] / best["seconds"]
    first = next((row["seconds"] for row in passed if row["change"] == "defaults"), None)
    default = f"{first * 1e6:10.1f}" if first is not None else "    failed"
    of_copy = f" ({share / roof:.1%} of a copy)" if roof is not None and found["limit"] == "memory" else ""
    return (
        f"{name:28} {best['seconds'] * 1e6:10.1f} us {ratio} {share:6.1%} of the bound{of_copy}; "
        f"defaults {default} us; "
        f"{len(passed)} of {len(found['rows'])} passed; best: {best['change']}"
    )


def main() -> None:
    """Measure the chosen cases."""
    parser = argparse.ArgumentParser(description="How fast is each kernel family?")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--workers", type=int, default=min(usable_cores(), 10))
    parser.add_argument("--variants", type=int, default=24, help="programs of a case at most")
    parser.add_argument("--vary", action="append", default=[], metavar="NAME", help="only this gene or tunable")
    options, choice = begin(parser)
    unknown = sorted(set(options.cases) - set(CASES))
    if unknown:
        parser.error(f"no case is called {', '.join(unknown)}")
    chosen = options.cases or list(CASES)
    results = Results("kernel_families", choice, {}, options.into, chosen if options.anew else ())
    for name in chosen:
        known = results.document.get(name, {})
        if (known.get("variants"), known.get("vary", [])) == (options.variants, options.vary):
            print(f"{name}: measured already; --anew measures it again")
            continue
        with tempfile.TemporaryDirectory(prefix="warpsmith-families-") as folder:
            try:
                results.document[name] = measured(name, options, choice, Path(folder))
            except* WarpsmithError as errors:
                print(f"{name}: {'; '.join(map(str, errors.exceptions))}")
            else:
                results.save()
                show(name, results.document[name])
    print()
    for name in chosen:
        if name in results.document:
            print(summary(name, results.document[name], copied_share(results.document.get("copy"))))
    results.finish()


if __name__ == "__main__":
    main()
