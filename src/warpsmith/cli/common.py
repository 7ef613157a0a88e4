"""What all verbs share: the application, their common flags, and how they end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from typer.core import TyperGroup

from warpsmith.errors import MachineError, UserError
from warpsmith.version import own_version

FAILED, BAD_INPUT, BAD_MACHINE, INTERRUPTED = 1, 2, 3, 130

_ORDER = ("optimize", "judge", "ask", "tell", "bundle", "mcp", "bench", "contest", "report", "archive", "doctor")


class _InOrder(TyperGroup):
    """Lists the verbs in the order in which they are met, and not in that of the alphabet or of the imports."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)


app = typer.Typer(
    cls=_InOrder,
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


def speaks_plainly(verb: Callable[P, int]) -> Callable[P, None]:
    """Turn what a verb raises into one line on standard error, and what it returns into the exit code."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = verb(*args, **kwargs)
        except UserError as error:
            code = complain(error, BAD_INPUT)
        except MachineError as error:
            code = complain(error, BAD_MACHINE)
        except KeyboardInterrupt:
            code = complain("interrupted", INTERRUPTED)
        raise typer.Exit(code)

    # Typer reads the signature, and `wraps` hands it that of the verb, which returns a code that nobody else needs.
    return run


def complain(what: object, code: int) -> int:
    """Say in a line on standard error what is wrong; return `code`."""
    Console(stderr=True).print(f"warpsmith: {what}", style="red", markup=False, highlight=False, soft_wrap=True)
    return code


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


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
