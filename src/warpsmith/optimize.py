"""`optimize`: a PyTorch module in, the fastest CUDA program found for it out.

This file stays light, because `import warpsmith` reads it, and worker processes import `warpsmith` all the time: what
does the work is imported when there is work.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warpsmith.records import Bound, Judged, Task

if TYPE_CHECKING:
    import torch

    from warpsmith.archive import Step
    from warpsmith.author.protocol import Author
    from warpsmith.evolve import Observer
    from warpsmith.explore import Outcome
    from warpsmith.settings import Settings


@dataclass(frozen=True, eq=False)
class Result:
    """What a run brought.

    `best` is the fastest candidate that passed, `lineage` the same after its ancestors, `history` every candidate
    judged for this task by this judge on this device, those of earlier runs first. `bound` is the speed of light on
    `device`. `run` numbers the run in `archive`, `stop_reason` says in a line why it ended; `interrupted` is true
    where the user ended it. `seconds` is how long it took. `course` tells how the best time came down with the seconds
    spent on this task, those of earlier runs counted in; `lessons` what authors said can be learnt from changes.
    """

    task: Task
    bound: Bound
    best: Judged
    lineage: tuple[Judged, ...]
    history: tuple[Judged, ...]
    device: str
    run: int
    archive: str
    stop_reason: str
    interrupted: bool
    seconds: float
    course: tuple[Step, ...] = ()
    lessons: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The same as reports and output folders take it."""
        from warpsmith.explore import Outcome

        return Outcome(
            self.task,
            self.bound,
            self.best,
            self.history,
            self.lineage,
            self.device,
            self.stop_reason,
            self.course,
            self.lessons,
        )

    def write(self, folder: str | Path) -> Path:
        """Write kernel, plan, functional form, verdict and report to `folder`, and return it.

        Raises SettingsError where the folder cannot be written.
        """
        from warpsmith.explore import write_results

        return write_results(self.outcome, Path(folder))


def optimize(
    target: str | Path | torch.nn.Module | Task,
    example_inputs: object = None,
    *,
    settings: Settings | None = None,
    budget: float | None = None,
    authors: Sequence[Author] | None = None,
    observer: Observer | None = None,
    retrieve: bool = True,
    without: Collection[str] = (),
) -> Result:
    """Find a fast CUDA program for a module, and return it with everything that was tried.

    `target` is a file in the KernelBench format ("file.py" or "file.py:Class"), a live module, which needs
    `example_inputs` (a tensor, a sequence of positional arguments or a mapping of keywords), or a loaded task.
    `budget`, in seconds, overrides that of `settings`; without `settings` they come from the environment and
    `warpsmith.toml`. `authors` replaces the built-in author; `observer` is told what happens. For comparisons: with
    `retrieve` false nothing is taken from other tasks in the archive, and operators named in `without` are not used.

    Everything is archived as it happens. Ctrl-C ends the search and returns what was found so far, with `interrupted`
    set; where nothing has passed yet, KeyboardInterrupt goes on to the caller. A later call on the same archive goes
    on from there. Raises UserError where the module, its inputs or a setting cannot be used, NothingPassed where no
    program passes the judge, and MachineError where the machine fails.
    """
    from warpsmith.pipeline import Pursuit, blocking
    from warpsmith.settings import load_settings

    given = {} if settings is None else {name: getattr(settings, name) for name in type(settings).model_fields}
    if budget is not None:
        given["budget"] = budget
    settings = load_settings(**given)
    pursuit = Pursuit(target, example_inputs, settings, authors, observer, retrieve=retrieve, without=without)
    return blocking(pursuit)
