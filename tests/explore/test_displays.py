"""What a user sees while a run goes on must be what happened."""

from __future__ import annotations

import io
from functools import reduce

import pytest
from rich.console import Console

from tests.explore.stories import CROSS, EVENTS, WINNER
from warpsmith.evolve.events import (
    AnswerRefused,
    CandidatePassedOver,
    Event,
    GenerationStarted,
    LessonLearnt,
    Progress,
    Waiting,
)
from warpsmith.explore import Display, LiveDisplay, PlainDisplay, Tally, display_for
from warpsmith.explore.tally import counts


def told(events: list[Event] | tuple[Event, ...]) -> Tally:
    return reduce(Tally.after, events, Tally())


def shown(display_class: type[Display], events: list[Event], *, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=110, color_system=None)
    with display_class(console) as display:
        for event in events:
            display(event)
        if isinstance(display, LiveDisplay):
            console.print(display.panel())
    return file.getvalue()


def test_counts_are_those_of_this_run() -> None:
    tally = told(tuple(EVENTS))
    assert (tally.judged, tally.built, tally.passed, tally.failed) == (6, 5, 4, 2)
    assert (tally.recalled, tally.lost, tally.generation) == (1, 1, 2)
    assert dict(tally.failures) == {"wrong_value": 1, "compile_error": 1}
    assert tally.best == WINNER
    assert [stage.name for stage in tally.finished] == ["functionalize", "translate"]


def test_an_earlier_tally_is_not_changed_by_a_later_event() -> None:
    early = told(tuple(EVENTS[:14]))
    before = repr(early)
    reduce(Tally.after, EVENTS[14:], early)
    assert repr(early) == before


def test_plain_lines_tell_the_story_without_control_codes() -> None:
    text = shown(PlainDisplay, list(EVENTS), terminal=False)
    assert "\x1b" not in text
    for line in (
        "functionalize: examples/relu.py",
        "bound: 14.0 ns on H200, limited by memory",
        "generation 2: 4 judged, 4 built, 3 passed, 1 failed (1 wrong value), 1 known from the archive",
        "best: 40.0 ns estimated for H200, 35% of the speed of light",
        "translate took 2.0 s: 8 ns by builtin",
        "stopped: time is up (60 s)",
    ):
        assert line in text


def test_plain_lines_stay_whole_however_narrow_the_log() -> None:
    file = io.StringIO()
    with PlainDisplay(Console(file=file, width=20)) as display:
        for event in EVENTS:
            display(event)
    assert "best: 40.0 ns estimated for H200, 35% of the speed of light\n" in file.getvalue()


def test_a_long_run_is_not_silent_between_generations() -> None:
    text = shown(PlainDisplay, [EVENTS[13]] * 25, terminal=False)
    assert [line.split("  ")[-1][:9] for line in text.splitlines()] == ["10 judged", "20 judged"]


def test_live_panel_says_stage_counts_reasons_best_and_time_left() -> None:
    text = shown(LiveDisplay, list(EVENTS), terminal=True)
    for part in ("generation 2", "6 judged", "5 built", "4 passed", "2 failed", "compile error ×1", "1:00 left"):
        assert part in text
    assert "20.0 ns estimated for H200" in text
    assert "70% of the bound, 14.0 ns" in text


@pytest.mark.parametrize("number", range(len(EVENTS) + 1))
def test_live_panel_can_be_drawn_at_any_moment(number: int) -> None:
    assert "candidates" in shown(LiveDisplay, list(EVENTS[:number]), terminal=True)


def test_display_suits_where_it_writes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(display_for(Console(file=io.StringIO(), force_terminal=True)), LiveDisplay)
    assert isinstance(display_for(Console(file=io.StringIO())), PlainDisplay)


def test_the_terminal_is_given_back_when_the_run_fails() -> None:
    file = io.StringIO()
    with pytest.raises(KeyboardInterrupt), LiveDisplay(Console(file=file, force_terminal=True)):
        raise KeyboardInterrupt
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l"), "the cursor stays hidden"


def test_best_is_shown_before_the_bound_is_known() -> None:
    assert told([EVENTS[14]]).best == CROSS
    assert "40.0 ns estimated" in shown(LiveDisplay, [EVENTS[14]], terminal=True)


@pytest.mark.parametrize(("display", "terminal"), [(PlainDisplay, False), (LiveDisplay, True)])
def test_money_refusals_and_repetitions_are_shown(display: type[Display], terminal: bool) -> None:
    refused = AnswerRefused("llm:fake", "translate", 1, "no fenced block", 0.01)
    known = CandidatePassedOver(WINNER.candidate, 1, "as one that was judged")
    progress = Progress(4, 3.0, 60.0, usd=0.25, usd_limit=2.0, usd_before=1.5)
    text = shown(display, [*EVENTS[:-1], refused, known, progress, *(EVENTS[-1:])], terminal=terminal)
    tally = told((*EVENTS, refused, known, progress))
    assert (tally.refused, tally.passed_over, tally.usd) == (1, 1, 0.25)
    line = counts(tally)
    assert "1 answers without a program, 1 nothing new" in line
    assert "0.2500 USD of 2, 1.5000 before" in line
    if terminal:
        assert "0.2500 USD of 2, 1.5000 before" in text


@pytest.mark.parametrize(("display", "terminal"), [(PlainDisplay, False), (LiveDisplay, True)])
def test_lessons_and_waits_are_shown(display: type[Display], terminal: bool) -> None:
    lesson = LessonLearnt("llm:fake", 1, "2.00 times as fast as before by rewrite by llm:fake: fewer barriers", 0.01)
    events = [*EVENTS[:-1], lesson, Waiting(30.0)]
    text = shown(display, events, terminal=terminal)
    assert ("1 lessons" if terminal else "lesson: 2.00 times as fast") in text
    assert ("30 s, as nobody answers" if terminal else "nobody answers; waiting 30 s") in text
    assert "1 lessons" in counts(told(events))
    assert told([*events, GenerationStarted(3)]).waiting == 0.0, "what is over is still shown"
