"""`bundle` and `judge --bundle`: candidates go to a machine with the GPU, verdicts come back, all as files.

To judge a program, the module that it stands for must be run, which is Python code. What a bundle says of a module is
not run unless whoever judges says that they trust it; a file of their own with the same task does as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from warpsmith.archive import Archive
from warpsmith.archive.extract import Extract, TaskRow, extract_candidates
from warpsmith.archive.merge import absorb
from warpsmith.device.choose import Choice, choose
from warpsmith.errors import TaskError, UserError
from warpsmith.exchange.judging import Progress, Watch, judge_candidates, unwatched
from warpsmith.exchange.package import Bundle, read_bundle, write_bundle
from warpsmith.files import write_text
from warpsmith.judge import JUDGE_VERSION
from warpsmith.pipeline import MakeExecutor, local_executor
from warpsmith.records import Task
from warpsmith.settings import Settings
from warpsmith.task import load_task
from warpsmith.task.sourcefile import split


@dataclass(frozen=True, slots=True)
class BundleJudged:
    """What came of a bundle: candidates judged now, and those `known` from before.

    `lost` has those on which the machine failed, or whose module cannot be used here, by key, with what was said.
    `note` says where the verdicts are not of the judge or the device that the bundle was made for.
    """

    device: str
    note: str
    judged: int
    known: int
    lost: tuple[tuple[str, str], ...]


def bundle(settings: Settings, out_file: str | Path, *, task: str | None = None) -> int:
    """Write all candidates of the archive that this judge has not judged on the device that is set; return how many.

    `task` is the beginning of a key: then only those for that task. The device is known by its name alone: for a GPU of
    another machine set it to what its driver calls it, such as `NVIDIA H200`. The same candidates give the same bytes.
    Nothing is written where none is left. Raises UserError for an unknown task, or where it is too much for one file.
    """
    device = choose(settings.device, simulate=settings.simulate).spec.name
    with Archive.open(settings.archive, create=False) as archive:
        task_key = None if task is None else archive.task_key(task, device)
        left = archive.pending(task_key, judge_version=JUDGE_VERSION, device=device)
        if left:
            extract = extract_candidates(archive, [candidate.key for candidate in left])
            write_bundle(Path(out_file), Bundle("candidates", JUDGE_VERSION, device, extract))
    return len(left)


def judge_bundle(
    file: str | Path,
    out_file: str | Path,
    settings: Settings,
    *,
    tasks: Sequence[str] = (),
    trust: bool = False,
    watch: Watch = unwatched,
    make_executor: MakeExecutor = local_executor,
) -> BundleJudged:
    """Judge the candidates of a bundle here, and write their verdicts to `out_file`, a bundle to be merged.

    `tasks` are files of this machine ("file.py" or "file.py:Class") with the modules that the candidates stand for.
    With `trust`, the code of a module that the bundle brings along is run where none of them fits. All that is in the
    bundle, and every verdict the moment it is there, goes to the archive of this machine: what was interrupted goes on
    from there when it is called again. Raises UserError, and leaves everything as it is, where the bundle cannot be
    used or a module is missing.
    """
    brought = read_bundle(Path(file))
    if brought.kind != "candidates":
        raise UserError(f"holds {brought.kind}, not candidates to judge", file=str(file))
    choice = choose(settings.device, simulate=settings.simulate)
    device = choice.spec.name
    with Archive.open(settings.archive) as archive:
        rows = brought.extract.candidates
        left = [row for row in rows if archive.verdict(row.key, JUDGE_VERSION, device) is None]
        needed = {row.task_key for row in left}
        modules = _Modules(brought.extract, needed, tasks, choice, trust=trust, file=str(file))
        absorb(archive, [brought.extract])
        judged = 0
        lost: list[tuple[str, str]] = []
        try:
            for task_key in sorted(needed):
                mine = [archive.candidate(row.key) for row in left if row.task_key == task_key]
                told = _counted(watch, judged + len(lost), len(left))
                try:
                    with modules.task(task_key) as task:
                        done = judge_candidates(task, mine, settings, choice, archive, told, make_executor)
                except TaskError as error:
                    # A module that cannot be used here must not keep the other tasks of the bundle waiting.
                    left_over = [e.key for e in mine if archive.verdict(e.key, JUDGE_VERSION, device) is None]
                    judged += len(mine) - len(left_over)
                    lost += [(key, str(error)) for key in left_over]
                else:
                    judged += done.judged
                    lost += done.lost
        finally:
            keys = [row.key for row in rows]
            extract = extract_candidates(archive, keys, judge_version=JUDGE_VERSION, device=device)
            write_bundle(Path(out_file), Bundle("verdicts", JUDGE_VERSION, device, extract))
    return BundleJudged(device, _note(brought, device), judged, len(rows) - len(left), tuple(lost))


def _note(brought: Bundle, device: str) -> str:
    """Say where whoever made the bundle will go on waiting, because they wait for other verdicts."""
    if (brought.judge_version, brought.device) == (JUDGE_VERSION, device):
        return ""
    return (
        f"the bundle was made for judge {brought.judge_version} on {brought.device}; these are verdicts of judge "
        f"{JUDGE_VERSION} on {device}"
    )


def _counted(watch: Watch, before: int, total: int) -> Callable[[Progress], None]:
    """Count over all tasks of the bundle."""
    return lambda progress: watch(replace(progress, done=before + progress.done, total=total))


class _Modules:
    """The modules behind the tasks of a bundle: from files of this machine, or as the bundle brings them."""

    def __init__(
        self, extract: Extract, needed: set[str], targets: Sequence[str], choice: Choice, *, trust: bool, file: str
    ) -> None:
        self._choice = choice
        self._rows = {row.key: row for row in extract.tasks}
        self._targets = {}
        for target in targets:
            self._targets[load_task(target, alone=choice.exclusive).key] = target
        if unknown := sorted(needed - set(self._rows)):
            raise UserError(f"holds candidates for task {unknown[0]}, but not the task", file=file)
        missing = [self._rows[key] for key in sorted(needed - set(self._targets))]
        if missing and not trust:
            named = ", ".join(f"{row.name} ({row.key})" for row in missing)
            raise UserError(
                f"brings Python code for {named}, which is not run unasked: name a file of yours with the same module "
                "with --task, or trust the code in the bundle with --trust",
                file=file,
            )

    @contextmanager
    def task(self, key: str) -> Iterator[Task]:
        """Load a task for as long as it is judged."""
        if key in self._targets:
            yield load_task(self._targets[key], alone=self._choice.exclusive)
        else:
            with _from_text(self._rows[key], self._choice) as task:
                yield task


@contextmanager
def _from_text(row: TaskRow, choice: Choice) -> Iterator[Task]:
    """Load the module whose text a bundle brings. Its file lies in a folder of its own, under a name of ours."""
    _, class_name = split(row.origin)
    with tempfile.TemporaryDirectory(prefix="warpsmith-bundle-") as folder:
        file = Path(folder) / "module.py"
        write_text(file, row.source)
        task = load_task(str(file) if class_name is None else f"{file}:{class_name}", alone=choice.exclusive)
        if task.key != row.key:
            raise TaskError(
                f"the code for task {row.name} ({row.key}) gives another task here, {task.key}; "
                "PyTorch may be of another version"
            )
        yield task
