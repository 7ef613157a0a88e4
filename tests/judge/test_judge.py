"""The stages in order, what ends them, and what a verdict tells."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from tests.judge.bench import builder, judge_for
from tests.judge.fakes import FakeBuilder, FakeDevice
from tests.judge.kernels import ARG_MAX, LINEAR, SOFTMAX, SQUARE, Kernel, candidate_of, task_of
from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.judge import Judge
from warpsmith.records import Candidate, Stage, Verdict
from warpsmith.task import draw


def verdict_on(kernel: Kernel, source: str | None = None, plan: str | None = None) -> Verdict:
    return judge_for(task_of(kernel)).judge(candidate_of(kernel, source, plan))


def faked(device: FakeDevice, **options: int) -> Judge:
    return Judge(task_of(SQUARE), device, FakeBuilder(), **options)  # type: ignore[arg-type]


def square(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"out": inputs["x"] * inputs["x"] + inputs["x"]}


def test_a_passed_verdict_tells_everything() -> None:
    verdict = verdict_on(LINEAR)
    assert verdict.passed and verdict.stage == Stage.PROFILE
    assert verdict.timing is not None and verdict.timing.source == "estimated"
    assert verdict.profile is not None and verdict.profile.advice and verdict.profile.bottleneck
    assert [counters.kernel for counters in verdict.counters] == ["linear"]
    assert verdict.resources[0].registers > 0
    assert [name for name, _ in verdict.seconds] == [stage.name.lower() for stage in Stage]
    families = [result.family for result in verdict.families]
    assert families[0] == "nominal" and families.count("exact") == 2
    assert {*judge_for(task_of(LINEAR)).families} <= {*families}
    assert all(result.error <= result.limit for result in verdict.families)


def test_the_first_failure_ends() -> None:
    verdict = verdict_on(SQUARE, SQUARE.source.replace("+ x[i];", "+ 1.5f;"))
    assert verdict.failure is not None and verdict.timing is None and verdict.profile is None
    assert verdict.stage == verdict.failure.stage == Stage.NUMERICS
    assert [name for name, _ in verdict.seconds] == ["screen", "build", "run", "numerics"]


def test_judging_twice_or_elsewhere_gives_the_same_verdict() -> None:
    candidate = candidate_of(SOFTMAX)
    first = judge_for(task_of(SOFTMAX)).judge(candidate)
    other = Judge(task_of(SOFTMAX), Simulator(gpu("H100")), builder()).judge(candidate)
    assert replace(first, seconds=()) == replace(other, seconds=())


def test_another_seed_draws_other_inputs() -> None:
    verdicts = [faked(FakeDevice(square), seed=seed).judge(candidate_of(SQUARE)) for seed in (0, 1)]
    seeds = [{(r.family, r.seed) for r in v.families if r.seed} for v in verdicts]
    assert not seeds[0] & seeds[1]


def test_inputs_can_be_drawn_again_from_a_report() -> None:
    verdict = verdict_on(SQUARE, SQUARE.source.replace("* x[i] +", "* fabsf(x[i]) +"))
    failure = verdict.failure
    assert failure is not None and failure.family is not None and failure.seed is not None
    assert failure.mismatch is not None
    x = draw(task_of(SQUARE), failure.family, failure.seed)["x"].double()
    index = failure.mismatch.index[0]
    assert failure.mismatch.expected == pytest.approx(float(x[index] * x[index] + x[index]), rel=1e-12)


def test_candidates_meet_different_members_of_a_small_pool_of_seeds() -> None:
    judge = faked(FakeDevice(square))
    edits = [candidate_of(SQUARE, SQUARE.source + f"// {number}\n") for number in range(12)]
    seeds = {r.seed for edit in edits for r in judge.judge(edit).families if r.family == "normal"}
    assert len(seeds) == 2


def test_many_candidates_are_held_up_to_one_reference() -> None:
    """Forty candidates must not cost forty times the references: the device, not PyTorch, is what they wait for."""
    judge = faked(FakeDevice(square))
    judge.judge(candidate_of(SQUARE))
    judge.judge(candidate_of(SQUARE, SQUARE.source + "//\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warpsmith.judge.references.refer", lambda *_: pytest.fail("computed again"))
        for _ in range(3):
            assert judge.judge(candidate_of(SQUARE)).passed


def test_references_let_go_of_memory() -> None:
    judge = faked(FakeDevice(square), cache_bytes=100_000)
    assert judge.judge(candidate_of(SQUARE)).passed
    held = judge._references._held
    assert sum(reference.nbytes for reference in held.values()) <= 100_000


def test_an_impossible_time_is_a_failure() -> None:
    judge = faked(FakeDevice(square, seconds=1e-12))
    failure = judge.judge(candidate_of(SQUARE)).failure
    assert failure is not None
    assert (failure.stage, failure.reason) == (Stage.TIME, "below_bound")


def test_an_endless_loop_ends_within_the_budget_given() -> None:
    source = SQUARE.source.replace("if (i < count)", "while (out[0] != 7.0f) out[1] = count;\n    if (i < count)")
    judge = Judge(task_of(SQUARE), Simulator(gpu("H100")), builder(), budget=2_000_000)
    start = time.monotonic()
    failure = judge.judge(candidate_of(SQUARE, source)).failure
    assert failure is not None and failure.reason == "budget"
    assert time.monotonic() - start < 60.0


def test_a_candidate_for_another_task_is_refused() -> None:
    candidate = candidate_of(SOFTMAX)
    failure = judge_for(task_of(SQUARE)).judge(candidate).failure
    assert failure is not None and (failure.stage, failure.reason) == (Stage.SCREEN, "wrong_task")


@pytest.mark.parametrize(
    ("old", "new", "stage", "reason", "says"),
    [
        ('kernel = "square"', 'kernel = "sqare"', Stage.BUILD, "no_such_kernel", "defined: square"),
        ('"x", "out", "count"', '"x", "out"', Stage.BUILD, "wrong_arguments", "takes 3 arguments; the plan gives 2"),
        (
            '"x", "out", "count"',
            '"x", "out", "x"',
            Stage.BUILD,
            "wrong_arguments",
            "Argument 3 of square is no pointer",
        ),
        ('"x", "out", "count"', '"x", "x", "count"', Stage.SCREEN, "output_unused", "the output out"),
        ('"x", "out", "count"', '"y", "out", "count"', Stage.SCREEN, "bad_plan", "y"),
        ("block = [128]", "block = [2048]", Stage.SCREEN, "bad_plan", "2048"),
    ],
)
def test_a_plan_that_does_not_fit_is_named(old: str, new: str, stage: Stage, reason: str, says: str) -> None:
    assert old in SQUARE.plan
    failure = verdict_on(SQUARE, plan=SQUARE.plan.replace(old, new)).failure
    assert failure is not None and (failure.stage, failure.reason) == (stage, reason)
    assert says in failure.message


def test_what_only_the_builder_refuses_is_a_verdict_too() -> None:
    twice = SQUARE.plan.split("[[launch]]")[1]
    plan = SQUARE.plan.rstrip() + "\nmax_registers = 32\n[[launch]]" + twice + "max_registers = 64\n"
    failure = verdict_on(SQUARE, plan=plan).failure
    assert failure is not None and (failure.stage, failure.reason) == (Stage.BUILD, "bad_plan")


def test_a_compiler_error_names_its_line() -> None:
    failure = verdict_on(SQUARE, SQUARE.source.replace("+ x[i];", "+ y[i];")).failure
    assert failure is not None and (failure.stage, failure.reason) == (Stage.BUILD, "compile_error")
    assert failure.diagnostics[0].line == 4 and "y" in failure.message and "line 4" in failure.message


def test_a_finding_names_kernel_line_block_and_thread() -> None:
    source = SQUARE.source.replace("if (i < count) ", "if (i <= count) ")
    failure = verdict_on(SQUARE, source).failure
    assert failure is not None and failure.reason == "out_of_bounds" and failure.finding is not None
    assert (failure.finding.kernel, failure.finding.line) == ("square", 4)
    assert "line 4" in failure.message and "block (7, 0, 0)" in failure.message


def test_tasks_of_integers_are_judged_too() -> None:
    verdict = verdict_on(ARG_MAX)
    assert verdict.passed and all(result.error == 0.0 for result in verdict.families)


def test_a_degenerate_task_is_marked() -> None:
    from warpsmith.task import task_from_module

    class Flat(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x, -1).sum(-1)

    task = task_from_module(Flat(), (torch.randn(4, 8),), name="flat")
    judge = Judge(task, Simulator(gpu("H100")), builder())
    assert not judge.admission.admitted
    assert judge_for(task_of(SQUARE)).admission.admitted


def test_values_of_tunables_reach_the_kernel() -> None:
    base = candidate_of(SOFTMAX)
    other = Candidate(base.task_key, base.program, (("BLOCK", 128),), base.lineage)
    judge = judge_for(task_of(SOFTMAX))
    blocks = [judge.judge(candidate).counters[0].block for candidate in (base, other)]
    assert blocks == [(64, 1, 1), (128, 1, 1)]


@pytest.mark.parametrize(("call", "name"), [('printf("%d", 1);', "printf"), ("assert(x[0] == x[0]);", "assert")])
def test_functions_outside_of_the_program_are_named(call: str, name: str) -> None:
    """Models like to write them; no device that judges has them all."""
    before, brace, after = SQUARE.source.partition("{")
    verdict = verdict_on(SQUARE, source=f"{before}{brace} {call}{after}")
    assert verdict.failure is not None
    assert (verdict.failure.stage, verdict.failure.reason) == (Stage.BUILD, "no_such_function")
    assert f"calls {name};" in verdict.failure.message
