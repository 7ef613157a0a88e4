"""`bench`, and `report`, which also reports on single tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from warpsmith.cli.common import (
    ArchivePlace,
    Device,
    Hybrid,
    Out,
    Simulate,
    app,
    speaks_plainly,
)
from warpsmith.cli.contests import show_contest
from warpsmith.records import MODES
from warpsmith.settings import load_settings


@app.command()
@speaks_plainly
def bench(
    suite: Annotated[Path, typer.Argument(help="Checkout of KernelBench, folder of task files, or list of files.")],
    level: Annotated[list[int] | None, typer.Option(help="Only this level; may be repeated.")] = None,
    select: Annotated[
        list[str] | None, typer.Option(help="Only these: 19, 1-20, 2/76 or a name with wildcards; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; one that holds a run goes on with it.")] = Path(
        "warpsmith-out/bench"
    ),
    budget: Annotated[float | None, typer.Option(help="Seconds of work for each task.")] = None,
    device: Device = None,
    simulate: Simulate = None,
    hybrid: Hybrid = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every choice left to chance.")] = None,
    workers: Annotated[int | None, typer.Option(help="Judging processes.")] = None,
    max_candidates: Annotated[int | None, typer.Option(help="Most candidates to judge for each task.")] = None,
    at_once: Annotated[
        int, typer.Option(min=1, help="Tasks under way at the same time; several GPUs are handed out in turn.")
    ] = 1,
    grace: Annotated[
        float, typer.Option(min=0.0, help="Seconds a task may take beyond its budget, times the tasks at once.")
    ] = 600.0,
    task_memory: Annotated[
        float | None,
        typer.Option(
            min=1.0, help="GB of main memory for one task; by default 4/5 of what there is, over tasks at once."
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what failed by fault of the machine.")] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Compare with PyTorch in this mode ({', '.join(MODES)}), on a GPU; may be repeated; all by default."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Whether to compare with PyTorch at all.")
    ] = True,
) -> int:
    """Run a suite of tasks and report on all of them."""
    settings = load_settings(
        budget=budget,
        device=device,
        simulate=simulate,
        hybrid=hybrid,
        seed=seed,
        workers=workers,
        max_candidates=max_candidates,
    )
    from warpsmith import bench as benches

    memory = benches.default_memory() // at_once if task_memory is None else int(task_memory * 1e9)
    options = benches.Options(
        grace=grace,
        memory=memory,
        retry=retry,
        baselines=benches.modes_named(baseline) if compare else (),
        command=tuple(sys.argv),
        at_once=at_once,
    )
    console = Console()
    entries = benches.discover(suite, level, select)
    finished = benches.run_bench(suite, entries, out, settings, benches.watcher_for(console), options)
    console.print(benches.render_scores(finished, out))
    console.print(f"report: {benches.write_bench(out)}", highlight=False, markup=False, soft_wrap=True)
    return 0


@app.command()
@speaks_plainly
def report(
    key: Annotated[
        str | None,
        typer.Argument(
            help="Key of a task, or its beginning (by default the latest); or a bench's or contest's folder."
        ),
    ] = None,
    other: Annotated[Path | None, typer.Argument(help="Folder of another bench, to set beside the first.")] = None,
    device: Device = None,
    out: Out = None,
    archive: ArchivePlace = None,
) -> int:
    """Write the report on a task from the archive, on a bench, or on two benches beside each other."""
    if key is not None and (other is not None or Path(key).is_dir()):
        return _report_bench(Path(key), other, Console())
    settings = load_settings(device=device, out=out, archive=archive)
    from warpsmith.archive import Archive
    from warpsmith.device.choose import AUTO, choose
    from warpsmith.explore import folder_for, outcome_from_archive, write_results

    spec = choose(settings.device, simulate=settings.simulate).spec
    with Archive.open(settings.archive, create=False) as opened:
        if settings.device == AUTO:
            # The device on which the task was judged last, wherever that was.
            judged = [each.device for each in opened.standings() if key is None or each.task_key.startswith(key)]
            spec = choose(judged[-1], simulate=settings.simulate).spec if judged else spec
        outcome = outcome_from_archive(opened, opened.task_key(key, spec.name), spec)
    folder = write_results(outcome, folder_for(settings.out, outcome.task))
    Console().print(f"{folder}/", highlight=False, markup=False, soft_wrap=True)
    return 0


def _report_bench(folder: Path, other: Path | None, console: Console) -> int:
    """Show the figures of one bench or of two, and write the page; of a contest, show its tables."""
    from warpsmith.bench import (
        compare_benches,
        load_bench,
        render_contrast,
        render_scores,
        write_bench,
        write_contrast,
    )
    from warpsmith.contest import is_contest

    if other is None and is_contest(folder):
        show_contest(folder, console)
        return 0
    if other is None:
        console.print(render_scores(load_bench(folder), folder))
        page = write_bench(folder)
    else:
        found = compare_benches(folder, other)
        console.print(render_contrast(found))
        page = write_contrast(found, other / f"against-{folder.resolve().name}.html")
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return 0
