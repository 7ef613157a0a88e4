"""The judge judged: every known bug must be caught, at the stage and for the reason that it has; good kernels pass."""

from __future__ import annotations

import pytest

from tests.judge.bench import judge_for
from tests.judge.kernels import KERNELS, Kernel, candidate_of, task_of
from tests.judge.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_good_kernel_passes(kernel: Kernel) -> None:
    verdict = judge_for(task_of(kernel)).judge(candidate_of(kernel))
    assert verdict.failure is None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_bug_is_caught(mutation: Mutation) -> None:
    verdict = judge_for(task_of(mutation.kernel)).judge(candidate_of(mutation.kernel, mutation.source))
    assert verdict.failure is not None, "the judge let it pass"
    assert verdict.failure.reason in mutation.reasons, verdict.failure.message
    assert verdict.failure.stage in mutation.stages, verdict.failure.message


def test_there_are_enough_bugs_of_every_kind() -> None:
    assert len(MUTATIONS) >= 20
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len({mutation.kernel.name for mutation in MUTATIONS}) >= 8
