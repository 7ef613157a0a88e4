"""Arms of a contest must have the same, differ in what is asked, and lose nothing when it is interrupted."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.contest.machine import Attempts, run, use
from tests.samples import TASK, candidate, passed
from warpsmith.archive import Archive
from warpsmith.bench import LiveWatcher, PlainWatcher, Words
from warpsmith.bench.interrupts import Interrupts
from warpsmith.bench.row import GOES_ON
from warpsmith.contest import Contest, Rules, Trial, figures, load_contest
from warpsmith.contest.gains import gains_of
from warpsmith.errors import ArchiveError, SettingsError
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import Candidate, Lineage

ARMS = ("builtin", "builtin -retrieval", "builtin -cross")


def of(contest: Contest, arm: str, task: str) -> Trial:
    (found,) = [trial for trial in contest.trials if (trial.arm, trial.row.name) == (arm, task)]
    return found


def proposals(trial: Trial) -> dict[str, int]:
    return {gain.operator: gain.proposals for gain in trial.gains}


# --------------------------------------------------------------------------------------------------------------- fair


def test_every_search_has_the_same_and_only_the_arms_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = use(monkeypatch, Attempts())
    rules = Rules(repeats=2, grace=5.0, memory=10**9)
    run(tmp_path, ARMS, "small", "large", rules=rules, budget=9.0, max_usd=0.5, max_candidates=7)
    assert len(attempts.orders) == 2 * 2 * 3
    for name, value in {"budget": 9.0, "max_usd": 0.5, "max_candidates": 7, "workers": 1}.items():
        assert set(attempts.settings(name)) == {value}
    assert {(limits.seconds, limits.memory) for limits in attempts.limits} == {(14.0, 10**9)}
    assert {order.memory for order in attempts.orders} == {10**9} and {
        order.baselines for order in attempts.orders
    } == {()}
    allowed = [(order.retrieve, order.without) for order in attempts.orders]
    plain, alone, straight = (True, ()), (False, ()), (True, ("cross",))
    assert allowed[:9] == [plain, alone, straight, alone, straight, plain, alone, straight, plain], "they take turns"
    done = zip(allowed, attempts.settings("seed"), attempts.orders)
    assert len({(who, seed, order.name) for who, seed, order in done}) == 12
    assert attempts.settings("seed") == [3] * 6 + [4] * 6
    assert [order.name for order in attempts.orders] == (["small"] * 3 + ["large"] * 3) * 2


def test_arms_and_repeats_share_neither_archive_nor_compiled_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = use(monkeypatch, Attempts())
    run(tmp_path, ARMS[:2], "small", "large", rules=Rules(repeats=2))
    assert len(set(attempts.settings("archive"))) == 8, "each search works on a copy of its own"
    assert len(set(attempts.settings("cache"))) == 4, "the tasks of an arm and a repeat may share what is compiled"
    assert all(Path(place).is_relative_to(tmp_path / "run") for place in attempts.settings("out"))


def test_what_is_switched_off_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Attempts(real=True))
    contest = run(tmp_path, ARMS, "small", "large", max_candidates=40)
    for arm in ARMS:
        first, second = (proposals(of(contest, arm, task)) for task in ("small", "large"))
        assert "inherit" not in first, "there is nothing to retrieve yet"
        assert ("inherit" in second) == (arm != "builtin -retrieval")
        assert ("cross" in {*first, *second}) == (arm != "builtin -cross")
    assert {trial.row.status for trial in contest.trials} == {"passed"}
    assert not any(GOES_ON in trial.row.marks for trial in contest.trials)
    _, other, _ = figures(contest)
    assert (other.wins + other.ties + other.losses, other.pairs) == (2, 2)
    same = [of(contest, arm, "small") for arm in ARMS[:2]]
    assert same[0].best == same[1].best is not None and same[0].gains == same[1].gains, "the same seed, the same search"


def test_a_model_can_be_an_arm_alone_and_with_the_built_in_author(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    attempts = use(monkeypatch, Attempts(real=True))
    contest = run(tmp_path, ("builtin", "model", "both=builtin+model"), "small", models=("a:b",), max_usd=0.05)
    alone, theirs, both = (of(contest, arm, "small") for arm in ("builtin", "model", "both"))
    assert {gain.author for gain in alone.gains} <= {"builtin", "search"} and alone.usd == 0.0
    assert {gain.author for gain in theirs.gains} <= {"a:b", "search"} and theirs.row.passed
    assert {"builtin", "a:b"} <= {gain.author for gain in both.gains}
    assert 0.0 < theirs.usd <= 0.05 + 1e-9 and 0.0 < both.usd <= 0.05 + 1e-9
    assert figures(contest)[1].usd == theirs.usd
    keys = ["SOME_API_KEY" in environment for environment in attempts.environments]
    assert keys == [False, True, True], "who asks models needs their keys, and nobody else does"


# ------------------------------------------------------------------------------------------------------------ resuming


def test_going_on_does_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = use(monkeypatch, Attempts(real=True))
    once = run(tmp_path, ARMS[:2], "small", "large")
    assert len(attempts.orders) == 4
    rows = tmp_path / "run" / "trials.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole + whole[:40])  # as a kill leaves it
    again = run(tmp_path, ARMS[:2], "small", "large")
    assert len(attempts.orders) == 4 and again.trials == once.trials and rows.read_bytes() == whole
    more = run(tmp_path, ARMS[:2], "small", "large", rules=Rules(repeats=2))
    assert len(attempts.orders) == 8 and more.trials[:4] == once.trials
    assert [session.how for session in more.record.sessions] == ["finished"] * 3
    assert sorted(path.name for path in (tmp_path / "run" / "builtin" / "seed-3").glob("*.db")) == ["archive-2.db"]
    assert load_contest(tmp_path / "run").trials == more.trials


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_is_done_and_forgets_what_is_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(number: int, interrupts: Interrupts) -> bool:
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
            while not interrupts.over:
                time.sleep(0.001)
        return number != 3

    attempts = use(monkeypatch, Attempts(real=True, after=interrupted))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ARMS[:2], "small", "large")
    assert len(load_contest(tmp_path / "run").trials) == 2
    assert load_contest(tmp_path / "run").record.sessions[0].how == "interrupted"
    contest = run(tmp_path, ARMS[:2], "small", "large")
    assert len(attempts.orders) == 5 and len(contest.trials) == 4
    third, again = attempts.orders[2:4]
    assert (third.name, third.retrieve) == (again.name, again.retrieve), "it is done once more"
    (redone,) = [each for each in contest.trials if (each.arm, each.row.name) == (ARMS[1], "large")]
    assert not redone.row.marks and redone.row.judged == 12, "with a whole budget, and nothing known of the first try"


@pytest.mark.parametrize(
    ("arms", "tasks", "settings", "said"),
    [
        (("builtin", "builtin -cross"), ("small", "large"), {}, "arms"),
        (ARMS[:2], ("small",), {}, "tasks small, large, now small"),
        (ARMS[:2], ("small", "large"), {"max_candidates": 99}, "max_candidates 12, now 99"),
        (ARMS[:2], ("small", "large"), {"max_usd": 1.0}, "max_usd None, now 1.0"),
        (ARMS[:2], ("small", "large"), {"seed": 9}, "seed 3, now 9"),
    ],
)
def test_a_folder_holds_one_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arms: tuple[str, ...], tasks: tuple[str, ...], settings: dict[str, float], said: str
) -> None:  # fmt: skip
    use(monkeypatch, Attempts())
    run(tmp_path, ARMS[:2], "small", "large")
    with pytest.raises(SettingsError, match="holds another run") as caught:
        run(tmp_path, arms, *tasks, **settings)
    assert said in str(caught.value)


def test_a_task_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Attempts(real=True))
    contest = run(tmp_path, ARMS[:2], "strange", "small")
    assert [(trial.row.name, trial.row.status) for trial in contest.trials] == [
        ("strange", "unsupported"),
        ("strange", "unsupported"),
        ("small", "passed"),
        ("small", "passed"),
    ]
    assert contest.trials[0].gains == () and contest.trials[0].best is None
    assert [(each.tasks, each.solved, each.pairs) for each in figures(contest)] == [(2, 1, 0), (2, 1, 1)]


def test_progress_names_task_arm_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Attempts())
    text = io.StringIO()
    watcher = PlainWatcher(Console(file=text, width=200), Words(many="searches"))
    run(tmp_path, ARMS[:2], "small", watcher=watcher)
    assert text.getvalue().splitlines() == [
        "2 searches",
        "1/2  small, builtin, seed 3: wrong: nothing passed",
        "2/2  small, builtin -retrieval, seed 3: wrong: nothing passed",
    ]


def test_the_panel_speaks_of_a_contest() -> None:
    words = Words("warpsmith contest", "searches", "Ctrl-C ends the contest")
    console = Console(width=80)
    with console.capture() as captured:
        console.print(LiveWatcher(console, words).panel())
    text = captured.get()
    assert text.startswith("warpsmith contest\n") and text.rstrip().endswith("Ctrl-C ends the contest")
    assert "searches" in text and "tasks" not in text


# ------------------------------------------------------------------------------------------------------- archive given


def given(place: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> str:
    """An archive in which a task has been searched."""
    run(place, ARMS[:2], task)
    (archive,) = (place / "run" / "builtin" / "seed-3").glob("archive-1.db")
    return str(archive)


def test_every_arm_begins_with_the_archive_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Attempts(real=True))
    (tmp_path / "first").mkdir()
    archive = given(tmp_path / "first", monkeypatch, "small")
    before = Path(archive).read_bytes()
    contest = run(tmp_path, ARMS[:2], "large", rules=Rules(repeats=1, archive_from=archive))
    assert "inherit" in proposals(of(contest, "builtin", "large"))
    assert "inherit" not in proposals(of(contest, "builtin -retrieval", "large"))
    assert Path(archive).read_bytes() == before
    Path(archive).unlink()
    more = run(tmp_path, ARMS[:2], "large", rules=Rules(repeats=2, archive_from=archive))
    assert len(more.trials) == 4, "the copy in the folder is what counts"
    with pytest.raises(SettingsError, match=r"archive from .*now none"):
        run(tmp_path, ARMS[:2], "large")


def test_an_archive_that_knows_the_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Attempts(real=True))
    (tmp_path / "first").mkdir()
    archive = given(tmp_path / "first", monkeypatch, "large")
    with pytest.raises(SettingsError, match="has programs for large already"):
        run(tmp_path, ARMS[:2], "large", "small", rules=Rules(repeats=1, archive_from=archive))


@pytest.mark.parametrize(
    ("source", "said"),
    [("nowhere.db", "there is no archive at nowhere.db"), ("postgresql://x/y", "postgresql is a database")],
)
def test_an_archive_that_cannot_be_copied_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    use(monkeypatch, Attempts())
    with pytest.raises((ArchiveError, SettingsError), match=said):
        run(tmp_path, ARMS[:2], "small", rules=Rules(archive_from=source))


def test_what_would_surprise_later_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="'openai:gpt-5' needs a key"):
        run(tmp_path, ("builtin", "model"), "small", models=("openai:gpt-5",))
    attempts = use(monkeypatch, Attempts())
    copy = tmp_path / "suite" / "copy.py"
    copy.write_text((tmp_path / "suite" / "small.py").read_text())
    monkeypatch.setattr("tests.contest.machine.suite", lambda folder, *names: tmp_path / "suite")
    with pytest.raises(SettingsError, match="small and copy are the same text"):
        run(tmp_path, ARMS[:2], "small", "copy")
    assert attempts.orders == []


def test_what_was_passed_over_or_refused_is_a_proposal_too(tmp_path: Path) -> None:
    slow = candidate(1)
    fast = Candidate(TASK.key, candidate(2).program, (("BLOCK", 256),), Lineage("model", "rewrite", (slow.key,)))
    same = Candidate(TASK.key, candidate(3).program, (("BLOCK", 256),), Lineage("model", "rewrite", (slow.key,)))
    with Archive.open(tmp_path / "archive.db") as archive:
        number = archive.start_run(TASK, "{}")
        for each, seconds in ((slow, 4e-6), (fast, 1e-6)):
            archive.add_candidate(number, each)
            archive.add_verdict(number, passed(each, seconds), judge_version=JUDGE_VERSION, device="H200")
        archive.add_candidate(number, same)
        archive.add_event(number, "passed_over", {"candidate": same.key, "generation": 1, "like": fast.key, "why": "x"})
        archive.add_event(number, "refused", {"author": "model", "operator": "repair", "cost_usd": 0.1})
        found = {gain.operator: gain for gain in gains_of(archive, TASK.key, number)}
    assert (found["rewrite"].proposals, found["rewrite"].passed, found["rewrite"].improved) == (2, 1, 1)
    assert found["rewrite"].log == pytest.approx(1.3862943611198906)
    assert (found["repair"].proposals, found["repair"].passed) == (1, 0)
    assert (found["create"].proposals, found["create"].improved) == (1, 0)
