"""Every exception that Warpsmith raises on purpose.

A wrong kernel is never an exception: it is a `Verdict`. An exception means that the caller gave us something
we cannot use, or that we or the machine failed.

    WarpsmithError
    ├── UserError                    the caller can mend it; the command line exits with 2
    │   ├── TaskError                the module or its inputs cannot be used; names file and line
    │   │   └── UnsupportedOperator  an operator that no author can lower; names it
    │   ├── ProgramError             device code or plan malformed; names the place in the plan
    │   │   └── ExpressionError      an expression that cannot be parsed or evaluated
    │   ├── SettingsError            an unknown device, a value out of range
    │   └── ArchiveError             not an archive, a newer schema, an unknown key
    └── MachineError                 not the caller's fault; the command line exits with 3
        ├── CompilerUnavailable      NVRTC or its headers cannot be loaded
        ├── WorkerDied               a worker process ended without an answer, even after a retry
        ├── NothingPassed            no author wrote a program that the judge lets pass
        └── SimulatorError           the simulator met something that it does not implement; names it
"""

from __future__ import annotations


class WarpsmithError(Exception):
    """Base of every exception raised on purpose."""


class UserError(WarpsmithError):
    """The caller can mend it. `file` and `line` (1-based) say where, if known."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        return place + self.message


class TaskError(UserError):
    """The module or its inputs cannot be used."""


class UnsupportedOperator(TaskError):
    """An operator that no author can lower. `node` names the node of the graph, where it is known."""

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, node: str | None = None
    ) -> None:
        super().__init__(message, file=file, line=line)
        self.node = node


class ProgramError(UserError):
    """Device code or plan malformed."""


class ExpressionError(ProgramError):
    """An expression that cannot be parsed or evaluated."""


class SettingsError(UserError):
    """An unknown device, a value out of range."""


class ArchiveError(UserError):
    """Not an archive, a newer schema, an unknown key."""


class MachineError(WarpsmithError):
    """We or the machine failed."""


class CompilerUnavailable(MachineError):
    """NVRTC or its headers cannot be loaded."""


class WorkerDied(MachineError):
    """A worker process ended without an answer, even after a retry."""


class NothingPassed(MachineError):
    """No author wrote a program that the judge lets pass."""


class SimulatorError(MachineError):
    """The simulator met something that it does not implement."""
