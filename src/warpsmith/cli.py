"""The command line. Verbs only; each parses its flags and calls one public function.

Exit codes: 0 done, 1 a judged program did not pass, 2 the caller can mend it, 3 the machine failed, 130 Ctrl-C.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

from warpsmith.errors import MachineError, NothingPassed, SettingsError, UserError
from warpsmith.records import MODES
from warpsmith.settings import Settings, load_settings
from warpsmith.version import own_version

FAILED, BAD_INPUT, BAD_MACHINE, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="PyTorch modules in, verified CUDA kernels out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
archive_app = typer.Typer(help="Look at what was tried.", no_args_is_help=True)
app.add_typer(archive_app, name="archive")

P = ParamSpec("P")

Device = Annotated[str | None, typer.Option(help="GPU to optimize for, by name; by default the one that is here.")]
Simulate = Annotated[bool | None, typer.Option("--simulate", help="Simulate even where the GPU is here.")]
Hybrid = Annotated[
    bool | None,
    typer.Option("--hybrid/--pure", help="Let programs call cuBLAS and cuDNN; by default our kernels do all work."),
]
ArchivePlace = Annotated[str | None, typer.Option("--archive", help="Archive: a file, or a PostgreSQL URL.")]
Out = Annotated[Path | None, typer.Option(help="Folder for results.")]


def main() -> None:
    """Run the command line."""
    app(prog_name="warpsmith")


def _speaks_plainly(verb: Callable[P, int]) -> Callable[P, None]:
    """Turn what a verb raises into one line on standard error, and what it returns into the exit code."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = verb(*args, **kwargs)
        except UserError as error:
            code = _complain(error, BAD_INPUT)
        except MachineError as error:
            code = _complain(error, BAD_MACHINE)
        except KeyboardInterrupt:
            code = _complain("interrupted", INTERRUPTED)
        raise typer.Exit(code)

    # Typer reads the signature, and `wraps` hands it that of the verb, which returns a code that nobody else needs.
    return run


def _complain(what: object, code: int) -> int:
    Console(stderr=True).print(f"warpsmith: {what}", style="red", markup=False, highlight=False, soft_wrap=True)
    return code


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"warpsmith {own_version()}")
        raise typer.Exit


@app.callback()
def _root(
    show: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
@_speaks_plainly
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
    )
    return _optimize(target, settings, Console())


def _optimize(target: str, settings: Settings, console: Console) -> int:
    """Run it under a display; leave results and a closing table, whatever ended the search."""
    from warpsmith.explore import display_for, folder_for, render_summary
    from warpsmith.optimize import optimize as find

    display = display_for(console)
    try:
        with display:
            result = find(target, settings=settings, observer=display)
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


@app.command()
@_speaks_plainly
def judge(
    candidate: Annotated[
        Path, typer.Argument(help="Folder with kernel.cu and plan.toml, or FILE.py with a KernelBench solution.")
    ],
    task: Annotated[str, typer.Option(help="FILE.py or FILE.py:Class that the candidate stands for.")],
    device: Device = None,
    simulate: Simulate = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the inputs of a program.")] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Use NVIDIA's sanitizer and profiler as well.")] = False,
    tunable: Annotated[list[str] | None, typer.Option("--set", help="A tunable's value, as NAME=VALUE.")] = None,
) -> int:
    """Judge a program, or a solution with host code, that somebody wrote."""
    settings = load_settings(device=device, simulate=simulate, seed=seed)
    if candidate.suffix == ".py":
        return _judge_foreign(candidate, task, settings, Console())
    values = _assignments(tunable or [])
    from warpsmith.device.choose import choose
    from warpsmith.judge import Judge, judge_folder, render
    from warpsmith.program import Builder
    from warpsmith.task import load_task

    choice = choose(settings.device, simulate=settings.simulate)
    loaded = load_task(task, alone=choice.exclusive)
    builder = Builder(settings.cache)
    made = choice.device(builder)
    try:
        judging = Judge(loaded, made, builder, seed=settings.seed, every_family=thorough, thorough=thorough)
        judged = judge_folder(judging, candidate, values)
    finally:
        made.close()
        builder.close()
    Console().print(render(judged.verdict, judged.candidate, restrictions=loaded.restrictions))
    return 0 if judged.verdict.passed else FAILED


def _judge_foreign(file: Path, target: str, settings: Settings, console: Console) -> int:
    """Judge a KernelBench solution: on the GPU of this machine, or else on the CPU, in a sandbox either way."""
    import secrets
    from contextlib import nullcontext

    from warpsmith.device.choose import choose
    from warpsmith.device.cuda.lock import gpu_lock
    from warpsmith.judge import render
    from warpsmith.judge.foreign import judge_foreign
    from warpsmith.task import load_task

    present = choose(settings.device, simulate=settings.simulate).present
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
    task = load_task(target)
    # Host code could find a seed that it can guess.
    seed = secrets.randbits(31)
    with gpu_lock(present.uuid) if present else nullcontext():
        where = f"cuda:{present.ordinal}" if present else "cpu"
        verdict = judge_foreign(task, text, device=where, seed=seed, gpu=present.spec if present else None)
    console.print(render(verdict))
    return 0 if verdict.passed else FAILED


def _assignments(texts: list[str]) -> dict[str, int]:
    """Read NAME=VALUE pairs. Raises SettingsError naming the one that is none."""
    values = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            values[name.strip()] = int(value)
        except ValueError:
            raise SettingsError(f"--set {text}: expected NAME=VALUE with an integer value") from None
    return values


@archive_app.command("list")
@_speaks_plainly
def archive_list(archive: ArchivePlace = None) -> int:
    """List the tasks in the archive and how far each has come."""
    from warpsmith.archive import Archive
    from warpsmith.explore import render_list

    with Archive.open(load_settings(archive=archive).archive, create=False) as opened:
        Console().print(render_list(opened.standings()))
    return 0


@archive_app.command("show")
@_speaks_plainly
def archive_show(
    key: Annotated[str, typer.Argument(help="Key of a task or a candidate, or its beginning.")],
    archive: ArchivePlace = None,
) -> int:
    """Show a task or a candidate."""
    from warpsmith.archive import Archive
    from warpsmith.explore import render_key

    with Archive.open(load_settings(archive=archive).archive, create=False) as opened:
        Console().print(render_key(opened, key))
    return 0


@app.command()
@_speaks_plainly
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
@_speaks_plainly
def report(
    key: Annotated[
        str | None,
        typer.Argument(help="Key of a task, or its beginning (by default the latest); or folder of a bench."),
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
    """Show the figures of one bench or of two, and write the page."""
    from warpsmith.bench import (
        compare_benches,
        load_bench,
        render_contrast,
        render_scores,
        write_bench,
        write_contrast,
    )

    if other is None:
        console.print(render_scores(load_bench(folder), folder))
        page = write_bench(folder)
    else:
        found = compare_benches(folder, other)
        console.print(render_contrast(found))
        page = write_contrast(found, other / f"against-{folder.resolve().name}.html")
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return 0


@app.command()
@_speaks_plainly
def doctor() -> int:
    """Say what this machine has, and what that allows."""
    from warpsmith.doctor import can_optimize, examine, render_diagnosis

    items = examine(load_settings())
    console = Console()
    console.print(render_diagnosis(items))
    ready = can_optimize(items)
    console.print("\n`warpsmith optimize` works here." if ready else "\n`warpsmith optimize` cannot work here.")
    return 0 if ready else BAD_MACHINE


if __name__ == "__main__":
    main()
