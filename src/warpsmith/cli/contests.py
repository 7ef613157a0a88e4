"""`contest`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from warpsmith.cli.common import Device, Hybrid, Simulate, app, say, speaks_plainly
from warpsmith.settings import load_settings


@app.command()
@speaks_plainly
def contest(
    suite: Annotated[Path, typer.Argument(help="Checkout of KernelBench, folder of task files, or list of files.")],
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="Arm: authors joined by + (builtin, model, agent, or a model's own name), then -retrieval or -cross, "
            "NAME= in front names it. Give two at least; the others are held against the first."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Seeds that each arm searches each task with.")] = 3,
    level: Annotated[list[int] | None, typer.Option(help="Only this level; may be repeated.")] = None,
    select: Annotated[
        list[str] | None, typer.Option(help="Only these: 19, 1-20, 2/76 or a name with wildcards; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the contest; one that holds a contest goes on with it.")] = Path(
        "warpsmith-out/contest"
    ),
    budget: Annotated[float | None, typer.Option(help="Seconds of work for each search.")] = None,
    max_candidates: Annotated[int | None, typer.Option(help="Most candidates to judge in each search.")] = None,
    max_usd: Annotated[float | None, typer.Option(help="Most US dollars to spend in each search.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A language model as author: provider:model, or openai@URL:model; may be repeated."),
    ] = None,
    archive_from: Annotated[
        str | None, typer.Option(help="Archive that every arm begins with a copy of, a file; by default an empty one.")
    ] = None,
    device: Device = None,
    simulate: Simulate = None,
    hybrid: Hybrid = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first repeat; those of the others follow.")] = None,
    workers: Annotated[int | None, typer.Option(help="Judging processes.")] = None,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds a search may take beyond its budget.")] = 600.0,
    task_memory: Annotated[
        float | None, typer.Option(min=1.0, help="GB of main memory for one search; by default 4/5 of what there is.")
    ] = None,
) -> int:
    """Compare sets of authors on a suite of tasks, with equal budgets and the same seeds."""
    settings = load_settings(
        budget=budget,
        max_candidates=max_candidates,
        max_usd=max_usd,
        models=tuple(model) if model else None,
        device=device,
        simulate=simulate,
        hybrid=hybrid,
        seed=seed,
        workers=workers,
    )
    from warpsmith import bench as benches
    from warpsmith import contest as contests

    arms = contests.arms_for(arm or (), settings)
    rules = contests.Rules(
        repeats=repeats,
        archive_from=archive_from,
        grace=grace,
        memory=benches.default_memory() if task_memory is None else int(task_memory * 1e9),
        command=tuple(sys.argv),
    )
    console = Console()
    words = benches.Words("warpsmith contest", "searches", "Ctrl-C ends the contest; the same command goes on with it")
    watcher = benches.watcher_for(console, words)
    entries = benches.discover(suite, level, select)
    contests.run_contest(suite, entries, arms, out, settings, watcher, rules)
    show_contest(out, console)
    return 0


def show_contest(folder: Path, console: Console) -> None:
    """Print the tables of a contest, and write its figures to its folder."""
    from warpsmith.contest import load_contest, render_contest, write_contest

    found = load_contest(folder)
    console.print(render_contest(found))
    say(console, f"figures: {write_contest(found, folder)}")
