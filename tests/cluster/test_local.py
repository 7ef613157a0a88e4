"""Judging in worker processes: what dies, hangs or talks nonsense must not take the run with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import pytest
import torch

from tests.cluster import entries
from tests.judge.kernels import SOFTMAX, SQUARE, candidate_of, task_of
from warpsmith.cluster import LocalExecutor
from warpsmith.cluster.worker import WorkerSetup, read_task, write_task
from warpsmith.errors import MachineError, SettingsError, SimulatorError, WorkerDied

Entry = Callable[[Connection, WorkerSetup], None]


def executor(entry: Entry, folder: Path, workers: int = 1, seconds: float = 30.0) -> LocalExecutor:
    return LocalExecutor(task_of(SQUARE), "H100", workers, cache_dir=folder, judgement_seconds=seconds, entry=entry)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be collected does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20.0
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_candidates_are_judged_side_by_side_and_agree_with_one_process(tmp_path: Path) -> None:
    from tests.judge.bench import judge_for

    good = candidate_of(SQUARE)
    bad = candidate_of(SQUARE, SQUARE.source.replace("+ x[i];", "- x[i];"))

    async def both() -> list[str | None]:
        verdicts = await asyncio.gather(pool.judge(good), pool.judge(bad), pool.judge(good))
        return [verdict.failure.reason if verdict.failure else None for verdict in verdicts]

    with LocalExecutor(task_of(SQUARE), "H100", 2, cache_dir=tmp_path) as pool:
        assert asyncio.run(both()) == [None, "wrong_value", None]
        families = asyncio.run(pool.judge(good)).families
    assert families == judge_for(task_of(SQUARE)).judge(good).families


def test_a_worker_that_dies_is_replaced_and_the_candidate_judged_again(tmp_path: Path) -> None:
    with executor(entries.dies_once, tmp_path) as pool:
        candidate = candidate_of(SQUARE)
        assert asyncio.run(pool.judge(candidate)).candidate_key == candidate.key
        assert (tmp_path / "died").exists()


def test_two_deaths_in_a_row_are_an_error_that_says_how(tmp_path: Path) -> None:
    candidate = candidate_of(SQUARE)
    with executor(entries.dies, tmp_path) as pool, pytest.raises(WorkerDied, match=f"with code 7.*{candidate.key}"):
        asyncio.run(pool.judge(candidate))


def test_what_pytorch_failed_with_is_told(tmp_path: Path) -> None:
    with (
        executor(entries.falls, tmp_path) as pool,
        pytest.raises(
            WorkerDied, match="met RuntimeError: CUDA error: an illegal memory access was encountered, twice"
        ),
    ):
        asyncio.run(pool.judge(candidate_of(SQUARE)))


def test_what_takes_too_long_is_a_verdict_and_nothing_of_it_lives_on(tmp_path: Path) -> None:
    with executor(entries.hangs_with_a_child, tmp_path, seconds=0.5) as pool:
        verdict = asyncio.run(pool.judge(candidate_of(SQUARE)))
        assert verdict.failure is not None
        assert (verdict.failure.stage.name, verdict.failure.reason) == ("RUN", "timeout")
        for pid in map(int, (tmp_path / "pids").read_text().split()):
            assert until(lambda pid=pid: not alive(pid))


def test_waiting_for_a_gpu_that_others_use_is_no_fault_of_the_candidate(tmp_path: Path) -> None:
    with executor(entries.waits_for_the_gpu, tmp_path, seconds=0.5) as pool:
        failure = asyncio.run(pool.judge(candidate_of(SQUARE))).failure
        assert failure is not None and failure.reason == "test"


def test_on_a_gpu_what_takes_too_long_is_the_fault_of_the_machine(tmp_path: Path) -> None:
    with (
        LocalExecutor(
            task_of(SQUARE), "H100", 1, cache_dir=tmp_path, judgement_seconds=0.5, simulate=False,
            entry=entries.hangs_on_the_first,
        ) as pool,
        pytest.raises(MachineError, match=r"longer than 0\.5 s"),
    ):  # fmt: skip
        asyncio.run(pool.judge(candidate_of(SQUARE)))


def test_after_a_timeout_the_next_candidate_is_judged(tmp_path: Path) -> None:
    with executor(entries.hangs_on_the_first, tmp_path, seconds=0.5) as pool:
        reasons = []
        for _ in range(3):
            failure = asyncio.run(pool.judge(candidate_of(SQUARE))).failure
            assert failure is not None
            reasons.append(failure.reason)
        assert reasons == ["timeout", "test", "test"]


def test_cancelling_one_judgement_leaves_the_others_alone(tmp_path: Path) -> None:
    async def cancel_one() -> str:
        first = asyncio.ensure_future(pool.judge(candidate_of(SQUARE)))
        await asyncio.sleep(0.3)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return (await pool.judge(candidate_of(SQUARE))).candidate_key

    with executor(entries.slow, tmp_path) as pool:
        asyncio.run(pool.judge(candidate_of(SQUARE)))
        assert asyncio.run(cancel_one()) == candidate_of(SQUARE).key


def test_cancelling_returns_at_once(tmp_path: Path) -> None:
    async def give_up() -> float:
        start = time.monotonic()
        with anyio.move_on_after(0.2):
            await pool.judge(candidate_of(SQUARE))
        return time.monotonic() - start

    with executor(entries.hangs_with_a_child, tmp_path, seconds=60.0) as pool:
        assert asyncio.run(give_up()) < 20.0


def test_errors_of_our_own_come_through_with_their_type(tmp_path: Path) -> None:
    with executor(entries.meets_unknown_instruction, tmp_path) as pool:
        with pytest.raises(SimulatorError, match=r"mma\.sync"):
            asyncio.run(pool.judge(candidate_of(SQUARE)))
        assert asyncio.run(pool.judge(candidate_of(SQUARE))).failure is not None


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with executor(entries.refuses, tmp_path) as pool, pytest.raises(SettingsError, match="abacus"):
        asyncio.run(pool.judge(candidate_of(SQUARE)))


def test_nonsense_is_no_verdict(tmp_path: Path) -> None:
    with executor(entries.talks_nonsense, tmp_path) as pool, pytest.raises(WorkerDied, match="nonsense"):
        asyncio.run(pool.judge(candidate_of(SQUARE)))


def test_closing_ends_every_worker_and_refuses_more(tmp_path: Path) -> None:
    pool = executor(entries.answers, tmp_path, workers=2)
    failure = asyncio.run(pool.judge(candidate_of(SQUARE))).failure
    assert failure is not None and alive(int(failure.message))
    pool.close()
    assert until(lambda: not alive(int(failure.message)))
    with pytest.raises(WorkerDied, match="closed"):
        asyncio.run(pool.judge(candidate_of(SQUARE)))


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_is_refused(workers: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers"):
        executor(entries.answers, tmp_path, workers=workers)


def test_a_task_read_from_its_file_is_the_same_task(tmp_path: Path) -> None:
    task = task_of(SOFTMAX)
    write_task(task, tmp_path / "task")
    copy = read_task(tmp_path / "task")
    assert copy.key == task.key
    assert all(torch.equal(copy.examples[name], task.examples[name]) for name in task.examples)
