"""The four stages in order: functionalize, translate, evolve, archive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import anyio.from_thread
import torch

from warpsmith.archive import BEGAN, Archive, Kindred, Step
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.author.builtin.heritage import nearness_to
from warpsmith.author.protocol import Author
from warpsmith.cluster import LocalExecutor
from warpsmith.device.choose import Choice, choose
from warpsmith.errors import NothingPassed, TaskError
from warpsmith.evolve import (
    SEARCH,
    Evolution,
    Executor,
    Observer,
    Problem,
    StageFinished,
    StageStarted,
    Stopped,
    TaskLoaded,
    arms_of,
    ignore,
    near_bound,
    teaching,
    turn,
)
from warpsmith.evolve.heirs import Relative, as_they_are
from warpsmith.evolve.journal import STOPPED
from warpsmith.evolve.operators import BLIND
from warpsmith.evolve.pure import PureJournal, pure
from warpsmith.explore.words import duration
from warpsmith.judge import JUDGE_VERSION
from warpsmith.optimize import Result
from warpsmith.records import Candidate, GpuSpec, Judged, Task
from warpsmith.settings import Settings
from warpsmith.task import bound, load_task, task_from_module

INTERRUPTED = "interrupted"

P = ParamSpec("P")
T = TypeVar("T")

MakeExecutor = Callable[[Task, Choice, Settings, bool], Executor]
_MOST_ON_GPU = 4
"""Judges in turn keep a GPU busy from here on; each more makes only the start longer."""
_PATIENCE = 4
"""How many times the limit of a judgement a thorough one may take."""
_CONFIRMED = 5
"""How many of the fastest are looked at thoroughly until one passes."""
_SLOWEST = 50e6
"""Bytes of a task for which a judgement has a second more: references of all families go over them many times."""
_SEEDS = 6
"""Candidates carried over from similar tasks at most: some that are wrong about this one must not cost much."""
_AS_THEY_ARE = 2
"""Programs without a recipe for similar tasks that are tried as they are."""
_COPIES = 60
"""How many times the bytes of a task a judge on a GPU may hold: arena, pool, and references with their scatter."""


def authors_of(settings: Settings) -> list[Author]:
    """Return the built-in author, and the language models that the settings name.

    Raises SettingsError where a model has no key, or the libraries for it are not installed.
    """
    authors: list[Author] = [BuiltinAuthor(hybrid=settings.hybrid)]
    if settings.models:
        from warpsmith.author.llm import Limits, ensemble

        limits = Limits(
            timeout_s=settings.model_timeout,
            requests_per_minute=settings.requests_per_minute,
            max_prompt_tokens=settings.model_prompt_tokens,
            max_reply_tokens=settings.model_reply_tokens,
        )
        authors += ensemble(settings.models, limits, hybrid=settings.hybrid)
    return authors


def most_workers(task: Task, spec: GpuSpec) -> int:
    """How many workers a GPU's memory lets hold what they judge a task by."""
    return max(1, spec.memory_bytes // max(1, _COPIES * _moved(task)))


def local_executor(task: Task, choice: Choice, settings: Settings, thorough: bool) -> Executor:
    """Judge in worker processes of this machine: on a GPU as many as its memory lets hold references.

    One that is `thorough` is for the few candidates that are to be kept.
    """
    workers = 1 if thorough else settings.workers
    if choice.measures:
        workers = min(workers, _MOST_ON_GPU, most_workers(task, choice.spec))
    return LocalExecutor(
        task,
        choice.spec.name,
        workers,
        simulate=not choice.measures,
        thorough=thorough,
        cache_dir=settings.cache,
        seed=settings.seed,
        judgement_seconds=settings.judge_limit * (_PATIENCE if thorough else 1) + _moved(task) / _SLOWEST,
    )


def _moved(task: Task) -> int:
    return sum(spec.nbytes for spec in task.graph.arguments + task.graph.results)


class Pursuit:
    """One call of `optimize`. What it found so far can be asked for at any time, also after it was cancelled.

    For comparisons: with `retrieve` false nothing is taken from other tasks in the archive, neither a candidate nor an
    example nor a lesson, and operators named in `without` are not asked for.
    """

    def __init__(
        self,
        target: str | Path | torch.nn.Module | Task,
        example_inputs: object,
        settings: Settings,
        authors: Sequence[Author] | None = None,
        observer: Observer | None = None,
        make_executor: MakeExecutor = local_executor,
        *,
        retrieve: bool = True,
        without: Collection[str] = (),
    ) -> None:
        self._retrieve = retrieve
        self._without = frozenset(without)
        self._target = target
        self._inputs = example_inputs
        self._settings = settings
        self._authors = authors_of(settings) if authors is None else list(authors)
        self._tell = observer or ignore
        self._make_executor = make_executor
        self._started = time.monotonic()
        self._evolution: Evolution | None = None
        self._problem: Problem | None = None
        self._confirmed: Judged | None = None
        self._course: tuple[Step, ...] = ()
        self._lessons: tuple[str, ...] = ()
        self._run = 0

    async def pursue(self) -> str:
        """Go through all four stages; return why the search ended. Cancelled, it leaves all verdicts in the archive."""
        settings = self._settings
        choice = choose(settings.device, simulate=settings.simulate)
        problem = self._problem = self._functionalize(choice)
        with Archive.open(settings.archive) as archive:
            self._run = archive.start_run(problem.task, settings.to_json())
            archive.add_event(self._run, BEGAN, {"after": round(time.monotonic() - self._started, 3)})
            executor = self._make_executor(problem.task, choice, settings, False)
            try:
                reason = await self._search(problem, executor, archive)
            finally:
                executor.close()
            if choice.measures and settings.confirm:
                await self._confirm(choice, archive)
            with self._stage("archive", settings.archive) as done:
                self._close_run(archive, reason)
                done(f"{len(archive.judged(problem.task.key))} verdicts on this task")
        return reason

    def _functionalize(self, choice: Choice) -> Problem:
        """Make the module a pure function, and work out its speed of light."""
        with self._stage("functionalize", _shown(self._target)) as done:
            task = self._load(choice)
            problem = Problem(task, choice.spec, bound(task, choice.spec), JUDGE_VERSION)
            done(f"{len(task.graph.nodes)} operators, {len(task.graph.arguments)} inputs and parameters")
        self._tell(TaskLoaded(task, problem.bound))
        return problem

    def _load(self, choice: Choice) -> Task:
        target = self._target
        if isinstance(target, torch.nn.Module):
            if self._inputs is None:
                raise TaskError("a live module needs example_inputs")
            return task_from_module(target, self._inputs, alone=choice.exclusive)
        if self._inputs is not None:
            raise TaskError("example_inputs go with a live module; a file draws its own")
        return target if isinstance(target, Task) else load_task(target, alone=choice.exclusive)

    async def _search(self, problem: Problem, executor: Executor, archive: Archive) -> str:
        """Translate and evolve; return why it ended."""
        settings = self._settings
        kindred = self._kindred(problem, archive)
        evolution = self._evolution = Evolution(
            problem,
            self._authors if settings.hybrid else [pure(author) for author in self._authors],
            executor,
            archive if settings.hybrid else PureJournal(archive),
            self._run,
            turn(settings.budget, settings.max_candidates),
            seed=settings.seed,
            judging=settings.workers,
            stop_when=None if settings.target_fraction is None else near_bound(settings.target_fraction),
            max_usd=settings.max_usd,
            arms=(*arms_of(self._authors, without=BLIND | self._without), SEARCH),
            examples=teaching.examples(kindred),
            lessons=teaching.sentences(archive, kindred),
            observer=self._tell,
            started=self._started,
        )
        try:
            with self._stage("translate", "first programs") as done:
                known = evolution.resume()
                seeds = self._inherit(problem, evolution, archive, kindred) if self._retrieve else 0
                first = await evolution.translate()
                where = f"; {known} candidates known from the archive" if known else ""
                where += f"; {seeds} carried over from similar tasks" if seeds else ""
                done(f"{duration(first.seconds)} by {first.candidate.lineage.author}{where}")
            with self._stage("evolve", f"for {settings.budget:g} s") as done:
                reason = await evolution.run()
                done(f"{evolution.ledger.judged} candidates in {evolution.generation} generations")
        except anyio.get_cancelled_exc_class():
            self._close_run(archive, INTERRUPTED)
            self._tell(Stopped(INTERRUPTED))
            raise
        return reason

    def _kindred(self, problem: Problem, archive: Archive) -> list[Kindred]:
        """What the archive has for similar tasks, and for this one on other devices, that may be shown here."""
        if not self._retrieve:
            return []
        here = (problem.task.key, problem.gpu.name)
        found = archive.kindred(problem.task.graph, nearness_to(problem.gpu))
        return [
            each
            for each in found
            if (each.candidate.task_key, each.device) != here
            and (self._settings.hybrid or each.candidate.program.plan.pure)
        ]

    def _inherit(self, problem: Problem, evolution: Evolution, archive: Archive, kindred: Sequence[Kindred]) -> int:
        """Give the search what the archive knows of similar tasks; return how many candidates that is."""
        task, gpu = problem.task, problem.gpu
        known = {judged.candidate.key for judged in evolution.population.history}
        seeds: list[Candidate] = []
        heirs = [author for author in self._authors if isinstance(author, BuiltinAuthor)]
        if heirs:
            seeds += heirs[0].inherit(task, gpu, archive.precedents(task.graph, nearness_to(gpu)), _SEEDS, known)
        relatives = [Relative(each.candidate, f"{each.task_name} on {each.device}") for each in kindred]
        seeds += as_they_are(task, gpu, relatives, _AS_THEY_ARE, known)
        if seeds:
            evolution.inherit(seeds)
            told = [{"candidate": seed.key, "note": seed.lineage.note} for seed in seeds]
            archive.add_event(self._run, "inherited", {"candidates": told})
        return len(seeds)

    async def _confirm(self, choice: Choice, archive: Archive) -> None:
        """Judge the fastest thoroughly; where one fails now, the next. Raises NothingPassed where none passes."""
        assert self._evolution is not None and self._problem is not None
        passed = [judged for judged in self._evolution.population.history if judged.verdict.passed]
        fastest = sorted(passed, key=lambda judged: judged.seconds)[:_CONFIRMED]
        executor = self._make_executor(self._problem.task, choice, self._settings, True)
        try:
            with self._stage("confirm", "every input family, sanitizer and profiler") as done:
                for judged in fastest:
                    verdict = await executor.judge(judged.candidate)
                    version = f"{JUDGE_VERSION} thorough"
                    archive.add_verdict(self._run, verdict, judge_version=version, device=choice.spec.name)
                    if verdict.passed:
                        self._confirmed = Judged(judged.candidate, verdict)
                        done(f"{duration(self._confirmed.seconds)}, sanitized by {verdict.sanitized or 'nobody'}")
                        return
        finally:
            executor.close()
        raise NothingPassed(f"none of the {len(fastest)} fastest programs passes a thorough judgement")

    def _close_run(self, archive: Archive, reason: str) -> None:
        """Write down how the run ended and what it learnt, and look up what the time was spent on."""
        if self._evolution is None or self._problem is None:
            return
        self._course = archive.course(self._problem.task.key, self._problem.gpu.name)
        self._lessons = teaching.lessons_told(archive, self._problem.task.key)
        lessons = [[one.author, one.operator, one.stage, one.reason, n] for one, n in self._evolution.lessons.counts]
        data = {
            "reason": reason,
            "generation": self._evolution.generation,
            "lessons": lessons,
            "told": list(self._evolution.lessons.sentences),
            "usd": self._evolution.ledger.spent,
        }
        archive.add_event(self._run, STOPPED, data)

    def result(self, reason: str) -> Result | None:
        """Return what was found so far, or None where nothing has passed."""
        if self._problem is None or self._evolution is None or self._evolution.population.best is None:
            return None
        history = self._evolution.population.history
        best = self._confirmed or self._evolution.population.best
        return Result(
            task=self._problem.task,
            bound=self._problem.bound,
            best=best,
            lineage=ancestry(best, history),
            history=history,
            device=self._problem.gpu.name,
            run=self._run,
            archive=self._settings.archive,
            stop_reason=reason,
            interrupted=reason == INTERRUPTED,
            seconds=time.monotonic() - self._started,
            course=self._course,
            lessons=self._lessons,
        )

    @contextmanager
    def _stage(self, name: str, detail: str) -> Iterator[Callable[[str], None]]:
        """Tell of a stage; what it yields takes the line that says what came of it."""
        began, outcome = time.monotonic(), [""]
        self._tell(StageStarted(name, detail))
        yield lambda line: outcome.__setitem__(0, line)
        self._tell(StageFinished(name, time.monotonic() - began, outcome[0]))


def blocking(pursuit: Pursuit) -> Result:
    """Run a pursuit to its end; also from a notebook, where an event loop is running already.

    KeyboardInterrupt ends the search; it goes on to the caller only where there is nothing to return.
    """
    try:
        reason = run_to_end(pursuit.pursue)
    except KeyboardInterrupt:
        reason = INTERRUPTED
        if pursuit.result(reason) is None:
            raise
    result = pursuit.result(reason)
    if result is None:
        raise NothingPassed("the search ended before a program passed")
    return result


def run_to_end(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call an asynchronous function and return what it returns; also where an event loop is running already."""
    call = partial(function, *args, **kwargs)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(call)
    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(call)


def ancestry(best: Judged, history: Sequence[Judged]) -> tuple[Judged, ...]:
    """Return `best` after all its ancestors in `history`, in the order of `history`."""
    known: Mapping[str, Judged] = {judged.candidate.key: judged for judged in history}
    family: set[str] = set()
    frontier = [best.candidate.key]
    while frontier:
        key = frontier.pop()
        if key in known and key not in family:
            family.add(key)
            frontier.extend(known[key].candidate.lineage.parents)
    return tuple(judged for judged in history if judged.candidate.key in family)


def _shown(target: object) -> str:
    """What to call the target in a line."""
    if isinstance(target, torch.nn.Module):
        return type(target).__name__
    return target.name if isinstance(target, Task) else str(target)
