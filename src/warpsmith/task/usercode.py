"""Calling code that somebody else wrote: what it raises becomes one `TaskError` with the line to blame."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from warpsmith.errors import TaskError, WarpsmithError
from warpsmith.records import digest


class Blame:
    """A context in which the user's code runs. Whatever it raises leaves as a `TaskError`.

    `what` is the subject of the message ("the constructor of Model") and `verb` what went wrong with it; `file` is
    the file to look for in the traceback, whose innermost frame gives the line. Interrupts pass through; `sys.exit`
    in a user's file does not.
    """

    def __init__(self, what: str, file: str | None, verb: str = "raised") -> None:
        self.what = what
        self.file = file
        self.verb = verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None or isinstance(error, WarpsmithError) or not isinstance(error, (Exception, SystemExit)):
            return
        message = f"{self.what} {_describe(error, self.verb)}"
        raise TaskError(message, file=self.file, line=_line(error, self.file)) from error


def _describe(error: BaseException, verb: str) -> str:
    if isinstance(error, SyntaxError):
        return f"is not valid Python: {error.msg}"
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name!r}, which is not installed here"
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        return (
            "cannot be exported: its control flow or a shape depends on the values of tensors "
            f"({_first_line(error)}); express the choice with torch.where, or take it out of the module"
        )
    return f"{verb} {type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else "no message"


def _line(error: BaseException, file: str | None) -> int | None:
    if file is None:
        return None
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    return innermost_line(traceback.extract_tb(error.__traceback__), file)


def innermost_line(frames: traceback.StackSummary, file: str) -> int | None:
    """Return the line of the innermost frame that lies in `file`, None if none does."""
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return lines[-1] if lines else None


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Let code import the files beside it, leaving neither modules nor byte code behind."""
    before = set(sys.modules)
    wrote = sys.dont_write_bytecode
    path = str(folder.resolve())
    sys.dont_write_bytecode = True
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
        sys.dont_write_bytecode = wrote
        for name in set(sys.modules) - before:
            place = getattr(sys.modules[name], "__file__", None)
            if place is not None and Path(place).parent.resolve() == Path(path):
                del sys.modules[name]


def execute(text: str, file: str) -> ModuleType:
    """Run the text of `file` as a module of its own. Raises TaskError with the line where it fails."""
    module = ModuleType(f"warpsmith_source_{digest(file, text)}")
    module.__file__ = file
    with Blame("this file", file):
        code = compile(text, file, "exec", dont_inherit=True)
        # Decorators such as dataclass look their module up by name while the body runs.
        sys.modules[module.__name__] = module
        try:
            exec(code, module.__dict__)
        finally:
            sys.modules.pop(module.__name__, None)
    return module


def line_of(function: object, file: str | None) -> int | None:
    """Return the line on which a function of `file` starts; None for a function of another file."""
    code = getattr(function, "__code__", None)
    return code.co_firstlineno if isinstance(code, CodeType) and code.co_filename == file else None
