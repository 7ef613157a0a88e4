"""What a terminal says of answers and candidates."""

from __future__ import annotations

from pathlib import Path

from tests.samples import BOUND, candidate, failed, passed
from warpsmith.exchange import Answer, Progress, TaskStanding, Told, render_progress, render_told
from warpsmith.records import Judged

GOOD = Judged(candidate(1), passed(candidate(1), 2e-6))
BAD = Judged(candidate(2), failed(candidate(2)))


def test_every_answer_has_its_line_and_the_last_says_how_the_task_stands() -> None:
    standing = TaskStanding("beef", "relu", "H200", BOUND, 2, 1, 1, (GOOD,), ())
    slot = Path("g") / "01-rewrite"
    answers = (
        Answer(slot / "answer", GOOD.candidate, GOOD),
        Answer(slot / "answer-2", BAD.candidate, BAD),
        Answer(slot / "answer-3", candidate(3)),
        Answer(slot / "answer-4", problem="01-rewrite/answer-4/plan.toml:2: not TOML"),
    )
    lines = render_told(Told(standing, answers, proposed=3, judged=2)).splitlines()
    assert lines[0].startswith("01-rewrite/answer: passed, 2.00 µs estimated for H200")
    assert lines[1:4] == [
        "01-rewrite/answer-2: failed at numerics: wrong value",
        "01-rewrite/answer-3: waits for a judge",
        "01-rewrite/answer-4/plan.toml:2: not TOML",
    ]
    assert lines[4].startswith("3 new, 2 judged now, 1 wait; best: 2.00 µs estimated")


def test_where_nothing_passed_the_last_line_says_so() -> None:
    standing = TaskStanding("beef", "relu", "H200", BOUND, 0, 0, 0, (), ())
    assert render_told(Told(standing, (), 0, 0)) == "0 new, 0 judged now, 0 wait; best: none passed yet"


def test_progress_names_the_candidate_and_what_came_of_it() -> None:
    key = candidate(1).key
    assert render_progress(Progress(1, 3, candidate(1), GOOD.verdict)) == f"1 of 3  {key}  passed, 2.00 µs estimated"
    assert render_progress(Progress(2, 3, candidate(1), BAD.verdict)).endswith("failed at numerics: wrong value")
    assert render_progress(Progress(3, 3, candidate(1), None)).endswith("the machine failed on it")
