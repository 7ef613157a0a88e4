"""Programs as folders: `kernel.cu` beside `plan.toml`."""

from __future__ import annotations

from pathlib import Path

from warpsmith.errors import ProgramError
from warpsmith.program.plan import format_plan, parse_plan
from warpsmith.records import Program

SOURCE_NAME = "kernel.cu"
PLAN_NAME = "plan.toml"


def read_program(folder: str | Path) -> Program:
    """Read the program in `folder`. Raises ProgramError that names the file if one is missing or malformed."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ProgramError("there is no such folder", file=str(folder))
    plan = parse_plan(_read(folder / PLAN_NAME), file=str(folder / PLAN_NAME))
    return Program(_read(folder / SOURCE_NAME), plan)


def write_program(folder: str | Path, program: Program) -> None:
    """Write the program into `folder`, which is made if need be. Raises ProgramError if the plan is malformed."""
    folder = Path(folder)
    text = format_plan(program.plan)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOURCE_NAME).write_text(program.source, encoding="utf-8", newline="")
    (folder / PLAN_NAME).write_text(text, encoding="utf-8", newline="")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise ProgramError(f"the program has no {path.name}", file=str(path)) from error
    except OSError as error:
        raise ProgramError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ProgramError(f"is not UTF-8 text (byte {error.start})", file=str(path)) from error
