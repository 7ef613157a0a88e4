"""`archive list`, `archive show` and `archive merge`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from warpsmith.cli.common import (
    ArchivePlace,
    archive_app,
    say,
    speaks_plainly,
)
from warpsmith.settings import load_settings


@archive_app.command("list")
@speaks_plainly
def archive_list(archive: ArchivePlace = None) -> int:
    """List the tasks in the archive and how far each has come."""
    from warpsmith.archive import Archive
    from warpsmith.explore import render_list

    with Archive.open(load_settings(archive=archive).archive, create=False) as opened:
        Console().print(render_list(opened.standings()))
    return 0


@archive_app.command("show")
@speaks_plainly
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


@archive_app.command("merge")
@speaks_plainly
def archive_merge(
    source: Annotated[str, typer.Argument(help="A bundle, or another archive: a file, or a PostgreSQL URL.")],
    archive: ArchivePlace = None,
) -> int:
    """Take in what a bundle or another archive holds and this one does not."""
    from warpsmith.exchange import merge

    new = merge(load_settings(archive=archive).archive, source)
    say(
        Console(),
        f"new: {new.tasks} tasks, {new.runs} runs, {new.candidates} candidates, {new.proposals} proposals, "
        f"{new.verdicts} verdicts, {new.events} events",
    )
    return 0
