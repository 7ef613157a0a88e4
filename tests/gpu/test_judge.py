"""The judge judged on a real GPU: every known bug and every cheat is caught, at whatever stage; what is honest passes."""

from __future__ import annotations

import pytest

from tests.exploits.catalogue import Exploit, catalogue
from tests.gpu.bench import judge_for, needs_gpu
from tests.judge.kernels import KERNELS, Kernel, candidate_of, task_of
from tests.judge.mutations import MUTATIONS, Mutation

pytestmark = needs_gpu


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_good_kernel_passes(kernel: Kernel) -> None:
    verdict = judge_for(task_of(kernel)).judge(candidate_of(kernel))
    assert verdict.failure is None, verdict.failure.message
    assert verdict.timing is not None and verdict.timing.source == "measured"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_bug_is_caught(mutation: Mutation) -> None:
    verdict = judge_for(task_of(mutation.kernel)).judge(candidate_of(mutation.kernel, mutation.source))
    assert verdict.failure is not None, "the judge let it pass"


@pytest.mark.parametrize("exploit", catalogue(), ids=lambda exploit: exploit.name)
def test_cheat_is_caught_and_honesty_passes(exploit: Exploit) -> None:
    judge = judge_for(exploit.task)
    for name, arm in exploit.arms:
        failure = judge.judge(arm.candidate(exploit.task)).failure
        if name == "cheat":
            assert failure is not None, "the judge let it pass"
        else:
            assert failure is None, f"{name}: {failure.stage.name}: {failure.reason}: {failure.message}"


def test_after_all_of_that_a_good_kernel_still_passes() -> None:
    verdict = judge_for(task_of(KERNELS[0])).judge(candidate_of(KERNELS[0]))
    assert verdict.failure is None, verdict.failure.message
