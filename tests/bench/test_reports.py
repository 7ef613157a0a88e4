"""The report of a run is what others see of it: it must stand alone, be true, and run no text of a task."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.bench.stories import GPU_MACHINE, ROWS, bench, estimated, failed, passed
from warpsmith.bench import (
    BenchFolder,
    Row,
    compare_benches,
    render_bench,
    render_contrast,
    render_contrast_html,
    write_bench,
    write_contrast,
)
from warpsmith.bench.contrast import contrast
from warpsmith.bench.drawings import FLOOR, TOP, draw_curves, draw_shares, draw_speedups
from warpsmith.bench.report import render_bench_of
from warpsmith.errors import SettingsError


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
        self._hidden += tag in ("style", "script")
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(*rows: Row) -> Page:
    return Page(render_bench_of(bench(rows)))


def test_report_needs_no_network() -> None:
    html = render_bench_of(bench(ROWS))
    assert Page(html).fetched == []
    assert not {"link", "iframe", "img"} & set(Page(html).tags)
    assert Page(html).tags.count("script") == 1
    assert not re.search(r"url\(|@import|https?:|fetch\(", html)


def test_report_tells_what_was_run_and_what_came_of_it() -> None:
    text = page(*ROWS).text
    for part in (
        "4 of 6 tasks",
        "KernelBench sizes v0.1",
        "driver 580.1",
        "PyTorch 2.11.0",
        "budget 60.0",
        "3 pure, 1 hybrid",
        "1 wrong, 1 crashed",
        "was ended by SIGSEGV",
        "faster than the fastest baseline",
        "2 faster, 1 slower, 1 within doubt",
        "level2/1_hybrid",
        "hybrid (40% library)",
    ):
        assert part in text
    assert "estimate from" not in text


def test_measured_and_estimated_times_stand_in_columns_of_their_own() -> None:
    mixed = page(passed("a", 1, 2.0), estimated("b"))
    assert "Some times are estimates" in mixed.text
    assert "no figure over two kinds of timing" in mixed.text
    assert (
        "share of the bound, measured: 1 tasks" in mixed.text and "share of the bound, estimated: 1 tasks" in mixed.text
    )
    alone = page(estimated("b"))
    assert "All times are estimates" in alone.text
    assert "Against the baselines" not in alone.text and "measured on" not in alone.text


def test_report_of_an_unfinished_or_empty_run() -> None:
    part = bench(ROWS[:1])
    more = replace(part, record=replace(part.record, tasks=(*part.record.tasks, "later")))
    assert "1 of 2 tasks have not been run" in Page(render_bench_of(more)).text
    assert "No task has come to an end yet" in Page(render_bench_of(replace(more, rows=()))).text
    assert "0 of 1 tasks" in page(failed("a", 1)).text


def test_text_of_a_task_cannot_become_part_of_the_page() -> None:
    evil = "</td><script>alert(1)</script>"
    rows = (replace(passed(evil, 1, 2.0), marks=(evil,)), failed(evil + "2", 1, message=evil))
    assert page(*rows).tags.count("script") == 1
    one = bench(rows)
    assert Page(render_contrast_html(contrast(one, one, (evil, evil)))).tags.count("script") == 1


def test_drawings_are_well_formed_and_stay_inside() -> None:
    drawings = re.findall(r"<svg.*?</svg>", render_bench_of(bench(ROWS)), re.DOTALL)
    assert len(drawings) == 2 + 2 + 1, "two curves, two of speed-ups, one of shares"
    for drawing in drawings:
        for rect in ElementTree.fromstring(drawing).iter("rect"):
            top, height = float(rect.attrib["y"]), float(rect.attrib["height"])
            assert top >= TOP - 1 and top + height <= FLOOR + 1


def test_bars_are_sorted_and_hang_from_one() -> None:
    drawn = draw_speedups(ROWS, "eager")
    assert drawn is not None
    assert [bar.style for bar in drawn.bars] == ["gain", "gain", "even", "loss"]
    assert drawn.bars[0].y + drawn.bars[0].height == pytest.approx(drawn.base), "a gain stands on the line"
    assert drawn.bars[-1].y == drawn.base, "a loss hangs from it"
    assert drawn.bars[0].height > drawn.bars[-1].height
    assert "1×" in [tick.label for tick in drawn.up]
    assert draw_speedups([estimated("a")], "eager") is None
    assert draw_shares(ROWS, "estimated") is None


def test_the_curve_falls_and_begins_at_the_share_of_correct_tasks() -> None:
    drawn = draw_curves([("level 1", ROWS[:4])], "eager")
    assert drawn is not None
    heights = [float(number) for number in re.findall(r"V([\d.]+)", drawn.lines[0].path)]
    assert heights == sorted(heights), "y grows downwards"
    start = float(drawn.lines[0].path.split()[1].partition("H")[0])
    assert start == pytest.approx(FLOOR - (FLOOR - TOP) * 3 / 4, abs=0.01)
    assert draw_curves([("level 1", [estimated("a")])], "eager") is None


def test_labels_of_curves_do_not_cover_each_other() -> None:
    drawn = draw_curves([(f"level {n}", [passed("a", n, 1.5)]) for n in range(4)], "eager")
    assert drawn is not None
    places = [line.at for line in drawn.lines]
    assert all(later - earlier >= 12 for earlier, later in pairwise(places))
    assert max(places) <= FLOOR


SECOND = (
    passed("level1/1_fast", 1, 4.0, seconds=5e-4, interval=(4.9e-4, 5.1e-4)),
    passed("level1/2_even", 1, 1.0, seconds=1.005e-3, interval=(1e-3, 1.01e-3)),
    failed("level1/3_slow", 1),
    passed("level1/4_wrong", 1, 1.1),
    replace(passed("level2/1_hybrid", 2, 2.0), source_hash="edited"),
)


def test_two_runs_beside_each_other() -> None:
    found = contrast(bench(ROWS), bench(SECOND), ("one", "two"))
    assert [pair.first.name for pair in found.gained] == ["level1/4_wrong"]
    assert [pair.first.name for pair in found.lost] == ["level1/3_slow"]
    assert found.ratios == pytest.approx((2.0, 1 / 1.005)), "an edited task is not compared"
    assert found.mean == pytest.approx((2.0 / 1.005) ** 0.5)
    assert [pair.first.name for pair in found.faster] == ["level1/1_fast"] and found.slower == ()
    assert any("1 tasks have the same name but another text" in warning for warning in found.warnings)
    assert any("1 tasks have a row in one run only" in warning for warning in found.warnings)


def test_what_else_differs_is_a_warning() -> None:
    same = bench(ROWS)
    assert contrast(same, same, ("a", "b")).warnings == ()
    elsewhere = bench(
        [replace(row, device="H200", baselines=()) for row in ROWS],
        regime="v0",
        machine=replace(GPU_MACHINE, torch="2.13.0"),
    )
    text = " ".join(contrast(same, elsewhere, ("a", "b")).warnings)
    for part in ("device: H100 in the first run, H200", "size regime: v0.1", "baselines", "PyTorch: 2.11.0"):
        assert part in text
    assert "kind of timing" in " ".join(contrast(same, bench([estimated("a")]), ("a", "b")).warnings)


def test_the_contrast_on_a_terminal_and_as_a_page() -> None:
    found = contrast(bench(ROWS), bench(SECOND), ("one", "two"))
    text = io.StringIO()
    Console(file=text, width=160).print(render_contrast(found))
    shown = Page(render_contrast_html(found))
    for part in ("gained", "lost", "within noise", "2.00×", "over 2 tasks correct in both"):
        assert part in text.getvalue()
        assert part in shown.text
    assert "warning: 1 tasks have the same name" in text.getvalue()
    assert shown.fetched == []
    nothing = contrast(bench(ROWS), bench([failed("other", 1)]), ("one", "two"))
    assert "No common ground" in Page(render_contrast_html(nothing)).text


def test_reports_are_made_from_folders(tmp_path: Path) -> None:
    for name, rows in (("one", ROWS), ("two", SECOND)):
        made = bench(rows)
        with BenchFolder(tmp_path / name, made.record) as folder:
            for row in made.rows:
                folder.add(row)
    assert render_bench(tmp_path / "one") == render_bench_of(bench(ROWS))
    assert write_bench(tmp_path / "one").read_text() == render_bench_of(bench(ROWS))
    found = compare_benches(tmp_path / "one", tmp_path / "two")
    assert write_contrast(found, tmp_path / "both.html").read_text() == render_contrast_html(found)
    with pytest.raises(SettingsError, match="cannot write"):
        write_contrast(found, tmp_path / "absent" / "both.html")
    assert found.mean == pytest.approx((2.0 / 1.005) ** 0.5)
