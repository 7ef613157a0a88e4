"""Has candidates judged on this machine, each verdict into the archive the moment it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from warpsmith.archive import BEGAN, Archive
from warpsmith.device.choose import Choice
from warpsmith.errors import MachineError
from warpsmith.evolve.generation import plain_errors
from warpsmith.judge import JUDGE_VERSION
from warpsmith.pipeline import MakeExecutor, local_executor, run_to_end
from warpsmith.records import Candidate, Task, Verdict
from warpsmith.settings import Settings

LOST = "lost"
"""The event that tells of a candidate on which the machine failed: `{"candidate": key, "error": text}`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """That `done` of `total` candidates are through. `verdict` is the latest, None where the machine failed on it."""

    done: int
    total: int
    candidate: Candidate
    verdict: Verdict | None


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Round:
    """What came of candidates: how many were `judged`, and by key on which the machine failed, with what it said."""

    judged: int
    lost: tuple[tuple[str, str], ...]


def unwatched(_: Progress) -> None:
    """Watch nothing."""


def judge_candidates(
    task: Task,
    candidates: Sequence[Candidate],
    settings: Settings,
    choice: Choice,
    archive: Archive,
    watch: Watch = unwatched,
    make_executor: MakeExecutor = local_executor,
) -> Round:
    """Judge the candidates for `task` that this judge has not judged on this device, in a run of their own.

    A candidate on which the machine fails has no verdict afterwards, and the others go on; one that was judged before
    is passed over. Interrupted, this leaves every verdict so far in the archive.
    """
    device = choice.spec.name
    distinct = {each.key: each for each in candidates}
    left = [each for each in distinct.values() if archive.verdict(each.key, JUDGE_VERSION, device) is None]
    if not left:
        return Round(0, ())
    run = archive.start_run(task, settings.to_json())
    archive.add_event(run, BEGAN, {"after": 0.0})
    few = settings.model_copy(update={"workers": min(settings.workers, len(left))})
    executor = make_executor(task, choice, few, False)
    lost: dict[str, str] = {}
    done = 0

    async def judge(candidate: Candidate) -> None:
        nonlocal done
        verdict = None
        try:
            verdict = await executor.judge(candidate)
        except MachineError as error:
            lost[candidate.key] = str(error)
            archive.add_event(run, LOST, {"candidate": candidate.key, "error": str(error)})
        else:
            archive.add_verdict(run, verdict, judge_version=JUDGE_VERSION, device=device)
        done += 1
        watch(Progress(done, len(left), candidate, verdict))

    async def judge_all() -> None:
        with plain_errors():
            async with anyio.create_task_group() as group:
                for candidate in left:
                    group.start_soon(judge, candidate)

    try:
        run_to_end(judge_all)
    finally:
        executor.close()
    return Round(len(left) - len(lost), tuple(lost.items()))
