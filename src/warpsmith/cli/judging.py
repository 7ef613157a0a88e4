"""`judge`: a program, a solution with host code, or a bundle of candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from warpsmith.cli.common import (
    BAD_MACHINE,
    FAILED,
    ArchivePlace,
    Device,
    Simulate,
    app,
    complain,
    say,
    speaks_plainly,
)
from warpsmith.errors import SettingsError
from warpsmith.settings import Settings, load_settings


@app.command()
@speaks_plainly
def judge(
    candidate: Annotated[
        Path | None, typer.Argument(help="Folder with kernel.cu and plan.toml, or FILE.py with a KernelBench solution.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="FILE.py or FILE.py:Class that the candidate stands for; with --bundle one for each task."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Judge all candidates of a bundle instead.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --bundle: file for the verdicts.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="With --bundle: run the code of modules that it brings along.")
    ] = False,
    archive: ArchivePlace = None,
    device: Device = None,
    simulate: Simulate = None,
    workers: Annotated[int | None, typer.Option(help="With --bundle: judging processes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the inputs of a program.")] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Use NVIDIA's sanitizer and profiler as well.")] = False,
    tunable: Annotated[list[str] | None, typer.Option("--set", help="A tunable's value, as NAME=VALUE.")] = None,
) -> int:
    """Judge a program, or a solution with host code, that somebody wrote; or the candidates of a bundle."""
    settings = load_settings(device=device, simulate=simulate, seed=seed, archive=archive, workers=workers)
    targets = task or []
    if bundle is not None:
        if candidate is not None or tunable or thorough:
            raise SettingsError("--bundle goes with --task, --out and --trust alone: the bundle says what to judge")
        return _judge_bundle(bundle, out or bundle.with_suffix(".verdicts.zip"), settings, targets, trust, Console())
    if out is not None or trust or archive is not None or workers is not None:
        raise SettingsError("--out, --trust, --archive and --workers go with --bundle")
    if candidate is None or len(targets) != 1:
        raise SettingsError("name a candidate, and with --task the one module that it stands for")
    if candidate.suffix == ".py":
        return _judge_foreign(candidate, targets[0], settings, Console())
    return _judge_program(candidate, targets[0], settings, thorough, _assignments(tunable or []), Console())


def _judge_program(
    folder: Path, target: str, settings: Settings, thorough: bool, values: dict[str, int], console: Console
) -> int:
    """Judge the program in a folder."""
    from warpsmith.device.choose import choose
    from warpsmith.judge import Judge, judge_folder, render
    from warpsmith.program import Builder
    from warpsmith.task import load_task

    choice = choose(settings.device, simulate=settings.simulate)
    loaded = load_task(target, alone=choice.exclusive)
    builder = Builder(settings.cache)
    made = choice.device(builder)
    try:
        judging = Judge(loaded, made, builder, seed=settings.seed, every_family=thorough, thorough=thorough)
        judged = judge_folder(judging, folder, values)
    finally:
        made.close()
        builder.close()
    console.print(render(judged.verdict, judged.candidate, restrictions=loaded.restrictions))
    return 0 if judged.verdict.passed else FAILED


def _judge_bundle(file: Path, out: Path, settings: Settings, targets: list[str], trust: bool, console: Console) -> int:
    """Judge the candidates of a bundle, and say of each what came of it."""
    from warpsmith.exchange import judge_bundle, render_progress

    done = judge_bundle(
        file,
        out,
        settings,
        tasks=targets,
        trust=trust,
        watch=lambda progress: say(console, render_progress(progress)),
    )
    for key, why in done.lost:
        complain(f"{key} was not judged: {why}", BAD_MACHINE)
    if done.note:
        say(console, done.note)
    say(console, f"{done.judged} judged on {done.device}, {done.known} known before; verdicts: {out}")
    return BAD_MACHINE if done.lost else 0


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
