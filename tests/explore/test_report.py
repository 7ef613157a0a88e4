"""The report is what a user sends to others: it must stand alone, be true, and not run what a program's text says."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

from tests.explore.stories import HISTORY, NOTHING, OUTCOME, WINNER, hybrid, measured
from warpsmith.explore import render_report
from warpsmith.records import Judged, Program


class Page(HTMLParser):
    """Collects the text, the tags, and what would be fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden += tag == "style"
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_report_needs_no_network_and_runs_no_script() -> None:
    html = render_report(OUTCOME)
    page = Page(html)
    assert page.fetched == []
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert not re.search(r"url\(|@import", html)
    assert len(html) < 200_000


def test_report_says_that_an_estimate_was_never_measured() -> None:
    text = Page(render_report(OUTCOME)).text
    assert "estimated for H200" in text
    assert "It was never measured" in text
    assert "measured on H200" not in text


def test_a_measured_time_is_not_set_against_estimates() -> None:
    mixed = replace(OUTCOME, best=measured(WINNER), history=(*HISTORY[:-1], measured(WINNER)))
    page = Page(render_report(mixed))
    assert "measured on H200" in page.text
    assert "never measured: no GPU" not in page.text
    assert page.tags.count("circle") == 1, "estimates stand in a plot of measurements"
    assert "1.00×" in page.text


def test_report_tells_everything_of_the_winner() -> None:
    text = Page(render_report(OUTCOME)).text
    for part in (
        "20.0 ns",
        "70% of the speed of light",
        "4.00×",
        "6 5 passed, 2 generations",
        "numerics wrong value 1",
        "nominal",
        "Bottleneck: memory",
        "Load 16 with one float4",
        "kernel.cu",
        "fmaxf",
        "ceil_div",
        "aten",
        WINNER.candidate.key,
        "stopped: time is up (60 s)",
    ):
        assert part in text


def test_report_says_who_does_the_work() -> None:
    """Library code is never passed off as ours, and a share that nobody knows is not made up."""
    assert "20.0 ns estimated for H200 pure" in Page(render_report(OUTCOME)).text
    half = Page(render_report(replace(OUTCOME, best=hybrid(WINNER, 0.5)))).text
    assert "hybrid, 50% of the time in library code" in half and "[[call]]" in half
    unknown = Page(render_report(replace(OUTCOME, best=hybrid(WINNER, None)))).text
    assert "20.0 ns estimated for H200 hybrid 70%" in unknown or "hybrid speed of light" in unknown


def test_report_tells_what_was_learnt() -> None:
    lesson = "2.00 times as fast as before by rewrite by llm:x: <b>fewer</b> barriers"
    assert lesson in Page(render_report(replace(OUTCOME, lessons=(lesson,)))).text
    assert "What was learnt" not in Page(render_report(OUTCOME)).text


def test_report_on_nothing_says_why() -> None:
    text = Page(render_report(NOTHING)).text
    assert "No program has passed yet" in text
    assert "build compile error 1" in text
    assert "kernel.cu" not in text


def test_text_of_a_program_cannot_become_part_of_the_page() -> None:
    evil = "</pre><script>alert(1)</script>"
    program = Program(evil, WINNER.candidate.program.plan)
    lineage = replace(WINNER.candidate.lineage, note=evil, author=evil, operator=evil)
    winner = Judged(replace(WINNER.candidate, program=program, lineage=lineage), WINNER.verdict)
    task = replace(OUTCOME.task, name=evil, origin=evil, functional_source=evil)
    page = Page(render_report(replace(OUTCOME, best=winner, lineage=(winner,), task=task)))
    assert "script" not in page.tags


def test_drawings_are_well_formed() -> None:
    drawings = re.findall(r"<svg.*?</svg>", render_report(OUTCOME), re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ElementTree.fromstring(drawing)
