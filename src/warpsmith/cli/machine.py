"""`doctor`."""

from __future__ import annotations

from rich.console import Console

from warpsmith.cli.common import (
    BAD_MACHINE,
    app,
    speaks_plainly,
)
from warpsmith.settings import load_settings


@app.command()
@speaks_plainly
def doctor() -> int:
    """Say what this machine has, and what that allows."""
    from warpsmith.doctor import can_optimize, examine, render_diagnosis

    items = examine(load_settings())
    console = Console()
    console.print(render_diagnosis(items))
    ready = can_optimize(items)
    console.print("\n`warpsmith optimize` works here." if ready else "\n`warpsmith optimize` cannot work here.")
    return 0 if ready else BAD_MACHINE
