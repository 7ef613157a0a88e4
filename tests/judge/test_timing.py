"""Timed calls are verified calls: whatever a program does differently when it is timed, it is found out.

The runner is a fake whose clocks are told, so that nothing here depends on how fast the machine is; arena, series, pool
and the judgement are the real ones.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.device.fake_runner import Call, FakeRunner, Program
from tests.judge.kernels import SQUARE, task_of
from warpsmith.device.catalog import gpu
from warpsmith.device.cuda import series as series_module
from warpsmith.device.cuda.arena import Arena
from warpsmith.device.cuda.layout import lay_out
from warpsmith.device.cuda.process import Fault
from warpsmith.device.cuda.series import MOST_NODES, Series
from warpsmith.judge import timing as timing_module
from warpsmith.judge.pool import Pool
from warpsmith.judge.references import References
from warpsmith.judge.timing import LEAST_SERIES, STEPS, Limits, fault_failure, least_seconds, measure
from warpsmith.records import Bound, Failure, GpuState, Stage, TensorSpec, Timing

SLOTS = 8
SCRATCH = TensorSpec("scratch", (5,), "float32")
STATE = GpuState(1980, 2619, 40, 300.0)


@cache
def pool() -> Pool:
    task = task_of(SQUARE)
    return Pool(task, References(task, 0).get("nominal", 0), 0, 4, "cpu")


def honest(call: Call) -> None:
    x = call.tensor("x")
    call.tensor("scratch").copy_(x[:5])
    call.tensor("out").copy_(x * x + x)


@dataclass
class Bench:
    """A series of a program on a fake runner."""

    runner: FakeRunner
    series: Series
    monkeypatch: pytest.MonkeyPatch

    def measure(self, *, least: float = 0.0) -> Timing | Failure:
        clock = SimpleNamespace(perf_counter=self.runner.perf_counter)
        for module in (series_module, timing_module):
            self.monkeypatch.setattr(module, "time", clock)
        return measure(self.series, pool(), Limits(1.0, least), 5, "a GPU", lambda: STATE)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(program: Program, *, launches: int = 1, seed: int = 1, **clocks: Any) -> Bench:
        graph = pool().task.graph
        layout = lay_out(graph.arguments, graph.results, [SCRATCH], SLOTS, 512)
        runner = FakeRunner(layout, program, **clocks)
        arena = Arena(layout, runner, "cpu", share=False)  # type: ignore[arg-type]
        series = Series(runner, arena, launches, 1 << 20, random.Random(seed))  # type: ignore[arg-type]
        return Bench(runner, series, monkeypatch)

    return make


def timing_of(bench: Bench) -> Timing:
    timing = bench.measure()
    assert isinstance(timing, Timing), timing
    return timing


def failure_of(bench: Bench, **options: float) -> Failure:
    failure = bench.measure(**options)
    assert isinstance(failure, Failure), "the cheat passes"
    assert failure.stage == Stage.TIME
    return failure


# -------------------------------------------------------------------------------------------------------------- honest


def test_an_honest_program_is_timed(bench: Any) -> None:
    timing = timing_of(bench(honest, seconds=2e-4))
    assert timing.median == pytest.approx(2e-4) and timing.source == "measured" and timing.device == "a GPU"
    assert len(timing.samples) == LEAST_SERIES and len(timing.states) == LEAST_SERIES and timing.states[0] == STATE
    clocks = dict(timing.clocks_of)
    assert set(clocks) == {"events", "activity", "wall", "events warm"}
    assert all(seconds == pytest.approx(2e-4, rel=1e-3) for seconds in clocks.values())


def test_a_program_of_several_launches_is_timed_by_the_call(bench: Any) -> None:
    timing = timing_of(bench(honest, launches=5, seconds=2e-4))
    assert timing.median == pytest.approx(2e-4)


def test_without_a_profiler_the_other_clocks_must_do(bench: Any) -> None:
    timing = timing_of(bench(honest, activity_factor=None))
    assert "activity" not in dict(timing.clocks_of)


@pytest.mark.parametrize("seconds", [2e-4, 5e-2])
def test_more_series_are_made_while_samples_differ_and_there_is_time(bench: Any, seconds: float) -> None:
    noise = random.Random(3)

    def unsteady(call: Call) -> None:
        honest(call)
        call.runner.seconds = seconds * (1.0 + 0.2 * noise.random())

    timing = timing_of(bench(unsteady, seconds=seconds))
    assert (len(timing.samples) > LEAST_SERIES) == (seconds < 1e-3)
    assert len(timing.samples) >= LEAST_SERIES and timing.interval[0] < timing.median < timing.interval[1]


def test_calls_come_in_an_order_that_nobody_knows(bench: Any) -> None:
    orders = [bench(honest, seed=seed).runner.order for seed in range(6)]
    assert all(sorted(order) == list(range(SLOTS)) for order in orders)
    assert len(set(map(tuple, orders))) > 3


def test_long_plans_are_captured_for_fewer_calls(bench: Any) -> None:
    made = bench(honest, launches=MOST_NODES // 3)
    assert made.series.calls == len(made.runner.order) == 3 and made.series.slots == SLOTS
    timing_of(made)
    assert bench(honest, launches=10 * MOST_NODES).series.calls == 1


def test_no_call_finds_the_answer_of_the_last_one_in_its_output_nor_the_same_input_for_ever(bench: Any) -> None:
    found: list[bytes] = []
    inputs: list[tuple[int, float]] = []

    def watching(call: Call) -> None:
        found.append(call.tensor("out").numpy().tobytes())
        assert bool(call.tensor("out").isnan().all()) and bool(call.tensor("scratch").isnan().all())
        inputs.append((call.slot, float(call.tensor("x")[0])))
        honest(call)

    timing_of(bench(watching))
    assert len(set(found)) == len(found) == STEPS + (1 + LEAST_SERIES) * SLOTS
    of_one_slot = [value for slot, value in inputs if slot == 3]
    assert len(set(of_one_slot)) > 1, "contents must change at the same address"


# -------------------------------------------------------------------------------------------------------------- cheats


def when_timed(cheat: Program) -> Program:
    """Do the honest work when calls are made one by one, and cheat when they are replayed."""
    return lambda call: cheat(call) if call.replayed else honest(call)


def stale() -> Program:
    """Hands out the first result for ever."""
    kept: list[torch.Tensor] = []

    def program(call: Call) -> None:
        honest(call)
        kept.append(call.tensor("out").clone())
        call.tensor("out").copy_(kept[0])

    return program


def late() -> Program:
    """Leaves each result in the next call's slot."""
    kept: list[torch.Tensor] = []

    def program(call: Call) -> None:
        honest(call)
        result = call.tensor("out").clone()
        if kept:
            call.tensor("out").copy_(kept.pop())
        kept.append(result)

    return program


def nothing(call: Call) -> None:
    pass


def tail_left_out(call: Call) -> None:
    before = float(call.tensor("out")[-1])
    honest(call)
    call.tensor("out")[-1] = before


def overwrites(call: Call) -> None:
    honest(call)
    call.tensor("x")[-1] += 1.0


def tramples(call: Call) -> None:
    honest(call)
    layout = call.runner.layout
    call.memory[layout.offset("out", call.slot) + layout.place("out").spec.nbytes] ^= 1


def before_the_arena(call: Call) -> None:
    honest(call)
    call.memory[0] += 1


def keeps(call: Call) -> None:
    honest(call)
    call.runner.kept.add("cache")


def ahead() -> Program:
    """The first call does the work of all, the others do nothing."""
    done: list[int] = []

    def program(call: Call) -> None:
        if not done:
            for slot in range(SLOTS):
                x = call.tensor("x", slot)
                call.tensor("out", slot).copy_(x * x + x)
        done.append(call.slot)

    return program


@pytest.mark.parametrize(
    ("cheat", "reason", "words"),
    [
        (stale, "wrong_value", "timed call"),
        (late, "wrong_value", "timed call"),
        (lambda: nothing, "unexpected_nan", "timed call"),
        (lambda: tail_left_out, "unexpected_nan", r"out\[1002\]"),
        (lambda: overwrites, "input_overwritten", "x"),
        (lambda: tramples, "out_of_bounds", "out"),
        (lambda: before_the_arena, "out_of_bounds", "arena"),
        (lambda: keeps, "kept_state", "cache"),
    ],
    ids=["stale", "late", "nothing", "tail left out", "overwrites", "tramples", "before the arena", "keeps"],
)
def test_a_cheat_is_caught_also_where_it_cheats_only_in_timed_calls(
    bench: Any, cheat: Any, reason: str, words: str
) -> None:
    for program in (cheat(), when_timed(cheat())):
        failure = failure_of(bench(program))
        assert failure.reason == reason, failure.message
        # What lies in front of the arena is no call's own, so a call by itself shows it as memory of another.
        assert re.search(f"{words}|another call", failure.message), failure.message


def test_a_wrong_value_in_a_timed_call_can_be_drawn_again(bench: Any) -> None:
    failure = failure_of(bench(when_timed(stale())))
    assert failure.family == "nominal" and failure.seed in pool().seeds
    assert failure.mismatch is not None and failure.mismatch.output == "out"


def test_work_that_one_call_does_for_others_is_seen(bench: Any) -> None:
    failure = failure_of(bench(ahead()))
    assert failure.reason == "out_of_bounds" and "another call" in failure.message


def test_a_time_that_physics_forbids_is_rejected(bench: Any) -> None:
    failure = failure_of(bench(honest, seconds=1e-5), least=1.1e-5)
    assert failure.reason == "below_bound" and "10 µs" in failure.message and "11 µs" in failure.message
    assert isinstance(bench(honest, seconds=1e-5).measure(least=0.9e-5), Timing)


@pytest.mark.parametrize(
    "clocks",
    [
        {"activity_factor": 2.0},
        {"activity_factor": 0.3},
        {"host_factor": 0.5},
    ],
    ids=["work outside of the events", "the device idles", "events run ahead of the parent"],
)
def test_clocks_that_contradict_each_other_are_rejected_not_averaged(bench: Any, clocks: dict[str, float]) -> None:
    assert failure_of(bench(honest, seconds=1e-3, **clocks)).reason == "clocks_disagree"


@pytest.mark.parametrize("number", range(6))
def test_a_parent_that_is_held_up_once_is_no_reason_to_reject(bench: Any, number: int) -> None:
    timing = timing_of(bench(honest, seconds=1e-4, delays={number: 0.5}))
    assert dict(timing.clocks_of)["wall"] == pytest.approx(1e-4, rel=1e-3)


def test_a_program_that_faults_when_it_is_timed_is_told_of(bench: Any) -> None:
    fault = Fault("CUDA_ERROR_ILLEGAL_ADDRESS", "square: CUDA_ERROR_ILLEGAL_ADDRESS")
    for question in ("replay", "call"):
        with pytest.raises(Fault) as caught:
            bench(honest, faults={question: fault}).measure()
        failure = fault_failure(caught.value)
        assert failure.stage == Stage.TIME and "CUDA_ERROR_ILLEGAL_ADDRESS" in failure.message


# ------------------------------------------------------------------------------------------------------------- the bound

H200 = gpu("H200")
COPY = Bound(480 << 20, 480 << 20, 1000, "H200", 2 * (480 << 20) / 4.8e12, "memory")


def test_what_may_still_stand_in_the_l2_need_not_have_reached_memory() -> None:
    assert least_seconds(COPY, H200, 1) == pytest.approx(COPY.seconds - H200.l2_bytes / H200.memory_bandwidth)
    assert least_seconds(COPY, H200, 1 << 20) == pytest.approx(COPY.seconds, rel=1e-3)


def test_small_outputs_may_never_have_reached_memory_but_inputs_must_have_come() -> None:
    small = replace(COPY, bytes_written=1000)
    assert least_seconds(small, H200, 4) == pytest.approx(small.bytes_read / H200.memory_bandwidth)


def test_arithmetic_takes_its_time_whatever_stands_in_the_l2() -> None:
    product = Bound(1000, 1000, 10**15, "H200", 0.015, "arithmetic")
    assert least_seconds(product, H200, 1) == 0.015
