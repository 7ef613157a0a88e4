"""What runs left behind besides verdicts, and programs for similar tasks by anyone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.archive.test_kin import candidate_for, keep, task_of
from tests.samples import TASK, candidate, failed, passed
from warpsmith.archive import Archive
from warpsmith.records import Lineage


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive.db") as opened:
        yield opened


def waiting(archive: Archive, judge_version: str = "1", device: str = "H200", author: str = "builtin") -> list[str]:
    found = archive.pending(
        TASK.key, judge_version=judge_version, device=device, wanted=lambda lineage: lineage.author == author
    )
    return [each.key for each in found]


def test_what_this_judge_has_not_judged_on_this_device_waits_in_the_order_of_proposals(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    third, first, second = (candidate(variant) for variant in range(3))
    for each in (third, first, second, first):
        archive.add_candidate(run, each)
    archive.add_verdict(run, passed(first), judge_version="1", device="H200")
    assert waiting(archive) == [third.key, second.key]
    archive.add_verdict(run, failed(third), judge_version="1", device="H200")
    assert waiting(archive) == [second.key]
    assert waiting(archive, judge_version="2") == [third.key, first.key, second.key]
    assert waiting(archive, device="H100") == [third.key, first.key, second.key]


def test_the_first_proposal_says_whether_a_candidate_is_wanted(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    model = Lineage("model", "rewrite", prompt="prompt", cost_usd=0.5)
    archive.add_candidate(run, candidate(0))
    archive.add_candidate(run, replace(candidate(0), lineage=model))
    archive.add_candidate(run, replace(candidate(1), lineage=model))
    assert waiting(archive, author="model") == [candidate(1).key]
    (found,) = archive.pending(TASK.key, judge_version="1", device="H200", wanted=lambda lineage: lineage.cost_usd > 0)
    assert found == replace(candidate(1), lineage=model)


def test_every_answer_counts_towards_what_a_task_has_cost(archive: Archive) -> None:
    run, later = archive.start_run(TASK, "{}"), archive.start_run(TASK, "{}")
    elsewhere = archive.start_run(task_of("mm"), "{}")
    assert archive.spent(TASK.key) == 0.0
    dear = Lineage("model", "rewrite", cost_usd=0.25)
    for number in (run, later):  # the same program, answered twice and paid for twice
        archive.add_candidate(number, replace(candidate(0), lineage=dear))
    archive.add_event(run, "refused", {"author": "model", "cost_usd": 0.5})
    archive.add_event(run, "other", {"cost_usd": 9.0})
    archive.add_event(elsewhere, "refused", {"author": "model", "cost_usd": 7.0})
    assert archive.spent(TASK.key) == 1.0


def test_events_of_all_runs_on_a_task_are_told_in_order(archive: Archive) -> None:
    runs = [archive.start_run(TASK, "{}"), archive.start_run(task_of("mm"), "{}"), archive.start_run(TASK, "{}")]
    for number, run in enumerate(runs):
        archive.add_event(run, "stopped", {"number": number})
        archive.add_event(run, "other", {"number": 10 + number})
    assert archive.told(TASK.key, "stopped") == [{"number": 0}, {"number": 2}]
    assert archive.told(TASK.key, "lost") == []


def test_programs_for_similar_tasks_are_found_whoever_wrote_them(archive: Archive) -> None:
    near, far = task_of("mm", size=100), task_of("gelu", "mm", "exp")
    keep(archive, near, 3e-6, 1e-6, recipe=None)
    keep(archive, near, 2e-6, device="A100")
    keep(archive, far, 5e-6)
    keep(archive, task_of("sin"), 1e-6)
    nearness = {"H100": 1.0, "A100": 0.7}
    found = archive.kindred(task_of("mm", size=128).graph, nearness.__getitem__)
    assert [(each.task_name, each.device, each.seconds) for each in found] == [
        (near.name, "H100", 1e-6),
        (near.name, "A100", 2e-6),
        (far.name, "H100", 5e-6),
    ]
    assert found[0].candidate == candidate_for(near, 1, recipe=None)
    assert archive.kindred(task_of("mm").graph, lambda device: 0.0) == []
