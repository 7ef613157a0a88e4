"""Hybrid programs before the judge: judged like any other, marked for what they are, and unable to cheat."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tests.judge.bench import device, judge_for
from tests.judge.kernels import LINEAR, candidate_of, task_of
from warpsmith.judge import render
from warpsmith.judge.screen import screen
from warpsmith.records import BoundPlan, Failure, Stage, Verdict

VIEW = '{ tensor = "weight", shape = ["weight.shape[1]", "weight.shape[0]"], strides = [1, "weight.shape[1]"] }'
ALONE = f'[[call]]\nop = "aten.addmm"\nargs = ["bias", "x", {VIEW}]\nout = "out"\n'
ADD = """
extern "C" __global__ void add(const float* sums, const float* bias, float* out, int count, int cols) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = sums[i] + bias[i % cols];
}
"""
BEFORE_KERNEL = f"""
[buffers.sums]
shape = ["x.shape[0]", "weight.shape[0]"]
dtype = "float32"

[[launch]]
kernel = "add"
grid = [1]
block = [256]
args = ["sums", "bias", "out", "out.numel", "bias.numel"]

[[call]]
op = "aten.mm"
args = ["x", {VIEW}]
out = "sums"
"""


def judged(source: str, plan: str) -> Verdict:
    return judge_for(task_of(LINEAR)).judge(candidate_of(LINEAR, source, plan))


def test_a_program_of_calls_alone_passes_and_is_all_library() -> None:
    verdict = judged("\n", ALONE)
    assert verdict.passed, verdict.failure
    assert verdict.timing is not None and verdict.timing.source == "estimated"
    assert verdict.library_share == 1.0 and verdict.counters == () and verdict.resources == ()
    assert verdict.profile is not None and verdict.profile.bottleneck == "library calls"
    assert "aten.addmm" in verdict.profile.advice and dict(verdict.profile.metrics)["library_share"] == 1.0


def test_a_call_before_a_kernel_shares_the_time_with_it() -> None:
    verdict = judged(ADD, BEFORE_KERNEL)
    assert verdict.passed, verdict.failure
    assert [counted.kernel for counted in verdict.counters] == ["add"]
    assert verdict.library_share is not None and 0.0 < verdict.library_share < 1.0
    console = Console(file=StringIO(), width=120)
    console.print(render(verdict))
    assert f"Hybrid: library calls take {verdict.library_share:.0%} of the time" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_place_of_a_call_matters() -> None:
    """After the kernel it would come too late: what that reads is not written yet."""
    verdict = judged(ADD, BEFORE_KERNEL.replace('"aten.mm"', '"aten.mm"\nafter = 1'))
    assert verdict.failure is not None and verdict.failure.reason in ("unwritten", "uninitialised", "wrong_nan")


@pytest.mark.parametrize(("victim", "rows", "cols"), [("x", 46, 192), ("weight", 24, 192), ("bias", 24, 1)])
def test_no_call_writes_an_input(victim: str, rows: int, cols: int) -> None:
    """Refused before anything runs, although every shape fits."""
    parts = f'{{ tensor = "out", shape = [{rows}, 1] }}, {{ tensor = "out", shape = [1, {cols}] }}'
    spoils = f'[[call]]\nop = "aten.mm"\nargs = [{parts}]\nout = {{ tensor = "{victim}", shape = [{rows}, {cols}] }}\n'
    failure = screen(task_of(LINEAR), candidate_of(LINEAR, "\n", ALONE + spoils), device().spec)
    assert isinstance(failure, Failure) and failure.stage == Stage.SCREEN
    assert failure.reason == "input_overwritten" and failure.message.startswith("call 2 (aten.mm)")
    assert f"write to {victim}" in failure.message


def test_an_output_that_only_a_call_writes_counts_as_given() -> None:
    assert isinstance(screen(task_of(LINEAR), candidate_of(LINEAR, "\n", ALONE), device().spec), BoundPlan)
    unused = BEFORE_KERNEL.replace('"bias", "out", ', '"bias", "sums", ')
    failure = screen(task_of(LINEAR), candidate_of(LINEAR, ADD, unused), device().spec)
    assert isinstance(failure, Failure) and failure.reason == "output_unused"
