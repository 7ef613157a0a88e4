"""`optimize`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from warpsmith.cli.common import (
    INTERRUPTED,
    ArchivePlace,
    Device,
    Hybrid,
    Out,
    Simulate,
    app,
    speaks_plainly,
)
from warpsmith.errors import NothingPassed
from warpsmith.settings import Settings, load_settings


@app.command()
@speaks_plainly
def optimize(
    target: Annotated[str, typer.Argument(help="FILE.py in the KernelBench format, or FILE.py:Class.")],
    budget: Annotated[float | None, typer.Option(help="Seconds of work: the one dial.")] = None,
    device: Device = None,
    simulate: Simulate = None,
    hybrid: Hybrid = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every choice left to chance.")] = None,
    workers: Annotated[int | None, typer.Option(help="Judging processes.")] = None,
    out: Out = None,
    archive: ArchivePlace = None,
    max_candidates: Annotated[int | None, typer.Option(help="Most candidates to judge.")] = None,
    target_fraction: Annotated[float | None, typer.Option(help="Stop at this share of the speed of light.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A language model as author: provider:model, or openai@URL:model; may be repeated."),
    ] = None,
    max_usd: Annotated[float | None, typer.Option(help="Most US dollars to spend on models.")] = None,
) -> int:
    """Find a fast CUDA program for a PyTorch module."""
    settings = load_settings(
        budget=budget,
        device=device,
        simulate=simulate,
        hybrid=hybrid,
        seed=seed,
        workers=workers,
        out=out,
        archive=archive,
        max_candidates=max_candidates,
        target_fraction=target_fraction,
        models=tuple(model) if model else None,
        max_usd=max_usd,
    )
    return _optimize(target, settings, Console())


def _optimize(target: str, settings: Settings, console: Console) -> int:
    """Run it under a display; leave results and a closing table, whatever ended the search."""
    from warpsmith.explore import display_for, folder_for, render_summary
    from warpsmith.optimize import optimize as find
    from warpsmith.server.authors import all_authors

    display = display_for(console)
    try:
        with display:
            result = find(target, settings=settings, authors=all_authors(settings), observer=display)
    except (NothingPassed, KeyboardInterrupt):
        _leave_what_there_is(display.tally.task, settings, console)
        raise
    folder = result.write(folder_for(settings.out, result.task))
    console.print(render_summary(result.outcome, display.tally, folder, settings.archive))
    return INTERRUPTED if result.interrupted else 0


def _leave_what_there_is(task: Any, settings: Settings, console: Console) -> None:
    """Write the report on a search in which nothing passed: it says why."""
    from warpsmith.archive import Archive
    from warpsmith.device.choose import choose
    from warpsmith.explore import folder_for, outcome_from_archive, render_best, write_results

    if task is None:
        return
    with Archive.open(settings.archive) as opened:
        if task.key not in {each.key for each in opened.tasks()}:
            return
        outcome = outcome_from_archive(opened, task.key, choose(settings.device, simulate=settings.simulate).spec)
    folder = write_results(outcome, folder_for(settings.out, task))
    console.print(render_best(outcome))
    console.print(f"report: {folder / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
