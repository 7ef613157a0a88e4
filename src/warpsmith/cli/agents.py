"""`ask`, `tell`, `bundle` and `mcp`: for people, agents and machines that take part from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from warpsmith.cli.common import (
    BAD_INPUT,
    ArchivePlace,
    Device,
    Hybrid,
    Simulate,
    app,
    say,
    speaks_plainly,
)
from warpsmith.settings import load_settings


@app.command()
@speaks_plainly
def ask(
    target: Annotated[str, typer.Argument(help="FILE.py in the KernelBench format, or FILE.py:Class.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the questions.")],
    slots: Annotated[int, typer.Option(help="How many questions to ask.")] = 4,
    author: Annotated[str, typer.Option(help="In whose name they will be answered.")] = "agent",
    device: Device = None,
    simulate: Simulate = None,
    hybrid: Hybrid = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every choice left to chance.")] = None,
    archive: ArchivePlace = None,
) -> int:
    """Write a folder of questions about a module, to be answered with programs by whoever can."""
    settings = load_settings(device=device, simulate=simulate, hybrid=hybrid, seed=seed, archive=archive)
    from warpsmith.exchange import ask as write_questions

    asked = write_questions(target, folder, settings, slots=slots, author=author)
    say(Console(), f"generation {asked.generation}: {', '.join(asked.operators)}; read {folder / 'README.md'}")
    return 0


@app.command()
@speaks_plainly
def tell(
    folder: Annotated[Path, typer.Argument(help="Folder that `ask` wrote, with answers in it.")],
    judge: Annotated[bool, typer.Option("--judge/--no-judge", help="Judge here, or leave it to a bundle.")] = True,
    task: Annotated[str | None, typer.Option(help="The module's file, where it lies elsewhere now.")] = None,
    device: Device = None,
    simulate: Simulate = None,
    hybrid: Hybrid = None,
    workers: Annotated[int | None, typer.Option(help="Judging processes.")] = None,
    archive: ArchivePlace = None,
) -> int:
    """Take in the answers to a folder of questions, judge them, and write beside each what came of it."""
    settings = load_settings(device=device, simulate=simulate, hybrid=hybrid, workers=workers, archive=archive)
    from warpsmith.exchange import render_progress, render_told
    from warpsmith.exchange import tell as take_answers

    console = Console()
    told = take_answers(
        folder, settings, judge=judge, task_target=task, watch=lambda progress: say(console, render_progress(progress))
    )
    say(console, render_told(told))
    return BAD_INPUT if told.problems else 0


@app.command()
@speaks_plainly
def bundle(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    task: Annotated[str | None, typer.Option(help="Only for this task: the beginning of its key.")] = None,
    device: Device = None,
    simulate: Simulate = None,
    archive: ArchivePlace = None,
) -> int:
    """Pack all candidates that were not judged yet on a device, for a machine that has it."""
    settings = load_settings(device=device, simulate=simulate, archive=archive)
    from warpsmith.exchange import bundle as pack

    count = pack(settings, out, task=task)
    say(Console(), f"{count} candidates: {out}" if count else "every candidate was judged on this device already")
    return 0


@app.command()
@speaks_plainly
def mcp(
    root: Annotated[Path, typer.Argument(help="Folder with task files; no other file is read or run.")] = Path(),
    http: Annotated[bool, typer.Option("--http", help="Serve over HTTP on this machine in place of stdio.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for --http.")] = 8321,
    author: Annotated[str, typer.Option(help="Name of whoever proposes, in lineages.")] = "agent",
    device: Device = None,
    simulate: Simulate = None,
    hybrid: Hybrid = None,
    archive: ArchivePlace = None,
) -> int:
    """Serve tasks, judge and archive to coding agents over MCP."""
    settings = load_settings(device=device, simulate=simulate, hybrid=hybrid, archive=archive)
    from warpsmith.server import HTTP, STDIO, serve

    serve(settings, root, transport=HTTP if http else STDIO, port=port, author=author)
    return 0
