"""The process that one task has for itself: `python -m warpsmith.bench.work READ WRITE`.

It gets one order, tells how it goes, and answers with a row. It sends a first row as soon as the search is over, so
that a comparison with the baselines that crashes or hangs does not cost what was found. When whoever ordered is gone it
ends.

A run has these processes forked from one (`warpsmith.nursery`), in which `warm_up` was called.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from warpsmith import wire
from warpsmith.author.protocol import Author
from warpsmith.bench.compare import against_module
from warpsmith.bench.gpus import VISIBLE
from warpsmith.bench.judges import fork_server
from warpsmith.bench.order import Order, decode_order, empty_row, now, short
from warpsmith.bench.row import GOES_ON, NOT_COMPARED, Kind, Row, Status, baseline_times, encode_row
from warpsmith.errors import MachineError, NothingPassed, TaskError, UnsupportedOperator, UserError
from warpsmith.evolve import CandidateJudged, Event
from warpsmith.explore import Tally
from warpsmith.explore.words import duration
from warpsmith.optimize import Result, optimize
from warpsmith.records import Baseline, Comparison, Mode, Program
from warpsmith.settings import Settings

Compare = Callable[[Result, Settings, tuple[Mode, ...]], tuple[tuple[Baseline, ...], tuple[Comparison, ...]]]
Examine = Callable[[Result], tuple[str, ...]]
Tell = Callable[[wire.Message], None]

_EVERY = 0.5
"""Seconds between two messages on progress."""
_REASONS = 3
_EXAMINED_OPERATIONS = 10**9
_EXAMINED_BYTES = 1 << 26
"""Up to here, whether outputs depend on all inputs is found on a CPU in seconds."""
_TOUCHED = "PyTorch looks for GPUs while it is imported, so no process may be forked from one that has done so"
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "MemoryError")


def no_comparison(
    result: Result, settings: Settings, modes: tuple[Mode, ...]
) -> tuple[tuple[Baseline, ...], tuple[Comparison, ...]]:
    """Compare with nothing: against an estimate there is nothing to measure, or it was not asked for."""
    return (), ()


def dependence(result: Result) -> tuple[str, ...]:
    """Say whether outputs depend on each input, as far as that can be found out quickly on a CPU."""
    from warpsmith.task import admit

    moved = result.bound.bytes_read + result.bound.bytes_written
    if result.bound.operations > _EXAMINED_OPERATIONS or moved > _EXAMINED_BYTES:
        return ("dependence on inputs not examined",)
    found = admit(result.task)
    if not found.admitted:
        return (f"degenerate: {', '.join((*found.degenerate, *found.constant))}",)
    return () if found.nominal else ("degenerate on its own inputs",)


def kind_of(program: Program) -> Kind:
    """Say who does the work: our kernels alone, or library calls as well."""
    return "pure" if program.plan.pure else "hybrid"


def work(order: Order, tell: Tell, compare: Compare = no_comparison, examine: Examine = dependence) -> Row:
    """Do one task and return its row. A failure of the task, the author or the machine is a row too.

    `compare` returns the baselines and how the best program fares against them: name each comparison as its baseline,
    and compare with the fastest in any case. `examine` returns what a reader must know of the task.
    """
    watch = _Watch(tell)
    settings = Settings(**json.loads(order.settings))
    try:
        result = optimize(
            order.target,
            settings=settings,
            authors=_authors(order, settings),
            observer=watch,
            retrieve=order.retrieve,
            without=order.without,
        )
    except UnsupportedOperator as error:
        return _failed(order, watch, settings, "unsupported", str(error))
    except NothingPassed as error:
        return _failed(order, watch, settings, _without_pass(watch.tally), f"{error}: {_reasons(watch.tally)}")
    except UserError as error:
        unusable = isinstance(error, TaskError) and not _lacked_memory(error)
        return _failed(order, watch, settings, "task_error" if unusable else "machine_error", str(error))
    except MachineError as error:
        return _failed(order, watch, settings, "machine_error", f"{type(error).__name__}: {error}")
    except (MemoryError, RuntimeError) as error:
        # PyTorch has no type of its own for what the CPU lacks; everything else is a bug, and shall be seen as one.
        if not _lacked_memory(error):
            raise
        return _failed(order, watch, settings, "machine_error", f"not enough memory: {error}")
    except KeyboardInterrupt:
        return _failed(order, watch, settings, "timeout", f"stopped before anything passed: {_reasons(watch.tally)}")
    return _completed(order, watch, result, settings, tell, compare, examine)


def _authors(order: Order, settings: Settings) -> list[Author]:
    """Return whom to ask: those whom the settings name, with the built-in author or without."""
    # Here, since it imports PyTorch, which a run imports when it warms up.
    from warpsmith.author.builtin import BuiltinAuthor
    from warpsmith.server.authors import all_authors

    return [each for each in all_authors(settings) if order.builtin or not isinstance(each, BuiltinAuthor)]


class _Watch:
    """Watches a search: counts, notes when the first program passed, and tells of it now and then."""

    def __init__(self, tell: Tell) -> None:
        self.tally = Tally()
        self.first_pass: float | None = None
        self._tell = tell
        self._began = time.monotonic()
        self._told = -_EVERY

    def __call__(self, event: Event) -> None:
        self.tally = self.tally.after(event)
        if isinstance(event, CandidateJudged) and event.judged.verdict.passed and self.first_pass is None:
            self.first_pass = self.spent
        if self.spent - self._told >= _EVERY:
            self._told = self.spent
            best = f", best {duration(self.tally.best.seconds)}" if self.tally.best else ""
            self._tell({"note": f"{self.tally.stage}: {self.tally.judged} judged{best}"})

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began


def _completed(
    order: Order, watch: _Watch, result: Result, settings: Settings, tell: Tell, compare: Compare, examine: Examine
) -> Row:
    """Tell the first row; then write the results, examine the task, compare, and return the last row."""
    row = _passed(order, watch, result, settings)
    tell({"row": encode_row(replace(row, marks=(*row.marks, NOT_COMPARED)) if row.timing == "measured" else row)})
    try:
        result.write(order.results)
        tell({"note": "examining the task"})
        row = replace(row, marks=(*row.marks, *examine(result)))
        tell({"note": "comparing with the baselines"})
        baselines, comparisons = (compare if order.baselines else no_comparison)(result, settings, order.baselines)
        row = replace(row, baselines=baseline_times(baselines), comparisons=comparisons)
    except (MachineError, UserError) as error:
        row = replace(row, message=short(f"passed, but {type(error).__name__}: {error}"))
    except (MemoryError, RuntimeError) as error:
        if not _lacked_memory(error):
            raise
        row = replace(row, message=short(f"passed, but there was not enough memory to compare it: {error}"))
    except KeyboardInterrupt:
        row = replace(row, message="passed, but stopped before it was compared with the baselines")
    if row.timing == "measured" and row.against("best") is None:
        row = replace(row, marks=(*row.marks, NOT_COMPARED))
    return replace(row, spent=watch.spent, finished=now())


def _passed(order: Order, watch: _Watch, result: Result, settings: Settings) -> Row:
    timing = result.best.verdict.timing
    if timing is None:
        raise MachineError(f"{order.name}: the best program did not pass")
    marks = ("host code: not contained",) if not result.best.verdict.contained else ()
    if watch.tally.recalled:
        marks = (*marks, GOES_ON)
    if timing.source == "measured" and not settings.confirm:
        marks = (*marks, "not confirmed")
    marks = (*marks, *result.task.restrictions)
    return Row(
        name=order.name,
        source_hash=order.source_hash,
        fingerprint=order.fingerprint,
        status="passed",
        device=timing.device,
        spent=watch.spent,
        finished=now(),
        level=order.level,
        number=order.number,
        message="ended early" if result.interrupted else "",
        kind=kind_of(result.best.candidate.program),
        library_share=result.best.verdict.library_share,
        seconds=timing.median,
        interval=timing.interval,
        timing=timing.source,
        bound=result.bound.seconds,
        judged=watch.tally.judged,
        first_pass=watch.first_pass,
        marks=marks,
        course=tuple((round(step.spent, 3), step.seconds) for step in result.course),
    )


def _failed(order: Order, watch: _Watch, settings: Settings, status: Status, message: str) -> Row:
    return replace(
        empty_row(order, settings.device, status, message, watch.spent),
        bound=watch.tally.bound.seconds if watch.tally.bound else None,
        judged=watch.tally.judged,
    )


def _without_pass(tally: Tally) -> Status:
    """Say whose fault it is that nothing passed: without a verdict but that judging took too long, no program's."""
    if tally.judged and all(reason == "timeout" for reason, _ in tally.failures):
        return "timeout"
    if tally.judged or tally.recalled:
        return "wrong"
    return "machine_error" if tally.lost else "timeout"


def _reasons(tally: Tally) -> str:
    shown = ", ".join(f"{reason.replace('_', ' ')} ×{count}" for reason, count in tally.failures[:_REASONS])
    lost = f", {tally.lost} lost by the machine (last: {tally.loss})" if tally.lost else ""
    return f"{tally.judged} candidates judged{f' ({shown})' if shown else ''}{lost}"


def _lacked_memory(error: BaseException) -> bool:
    """Whether a task failed only since there was not enough memory for it here."""
    cause: BaseException | None = error
    while cause is not None:
        text = f"{type(cause).__name__} {cause}".lower()
        if any(words.lower() in text for words in _MEMORY_WORDS):
            return True
        cause = cause.__cause__
    return False


def _end_with_parent(reads: int) -> None:
    """End this process when the pipe closes: then the process that wants the row is gone."""
    while os.read(reads, 1):
        pass
    os._exit(1)


def limit_memory(memory: int | None) -> None:
    """Let this process, and each that it starts, have so many bytes of data, so that what wants more fails by itself.

    Data and not address space, of which the driver of a GPU reserves far more than it uses. Only the soft limit, so
    that the compiler's process can set its own.
    """
    if memory is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def warm_up() -> Callable[[], None]:
    """Import all that a task needs, and return what makes a fork like a fresh process.

    Neither may touch a GPU, since a process that is forked from one that has used CUDA cannot: the environment is to
    show none (see `run.py`). Both raise MachineError where it was touched all the same.
    """
    # Here, since only the process that others are forked from needs them before there is a task.
    import numpy
    import torch

    from warpsmith.bench.untouched import driver_in_use, forks_find_gpus, tracing_without_gpu
    from warpsmith.task import task_from_module

    threads = torch.get_num_threads()
    # Threads do not survive a fork, and a fork that was promised some would wait for them.
    torch.set_num_threads(1)
    importlib.import_module("warpsmith.server.authors")  # `work` imports it when there is work, and the pipeline by it
    with tracing_without_gpu():
        task_from_module(torch.nn.ReLU(), torch.zeros(2))  # The first export imports a thousand modules.
    if driver_in_use() or not forks_find_gpus(VISIBLE):
        raise MachineError(_TOUCHED)

    def wake() -> None:
        if torch.cuda._is_in_bad_fork():
            raise MachineError(_TOUCHED)
        torch.default_generator.seed()
        numpy.random.seed()
        said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        torch.set_num_threads(int(said) if said.isdecimal() and int(said) else threads)

    return wake


def main(compare: Compare = against_module, examine: Examine = dependence) -> None:
    """Do the one order that comes through the first descriptor given, and answer on the second."""
    reads, writes = int(sys.argv[-2]), int(sys.argv[-1])
    # Where the command was started in the background, interrupts would be ignored here too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    message, _ = wire.receive(reads)
    order = decode_order(str(message["order"]))
    limit_memory(order.memory)
    Path(order.results).parent.mkdir(parents=True, exist_ok=True)
    fork_server(reads, writes)
    threading.Thread(target=_end_with_parent, args=(reads,), daemon=True).start()
    row = work(order, lambda told: wire.send(writes, told), compare, examine)
    wire.send(writes, {"row": encode_row(row), "last": True})


if __name__ == "__main__":
    main()
