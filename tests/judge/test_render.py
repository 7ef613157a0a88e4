"""What a person sees of a verdict, and of a folder that was judged."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.judge.bench import judge_for
from tests.judge.kernels import SOFTMAX, SQUARE, candidate_of, task_of
from warpsmith.errors import ProgramError
from warpsmith.judge import judge_folder, render
from warpsmith.judge.render import quote
from warpsmith.task import admit, task_from_module


def shown(source: str) -> str:
    candidate = candidate_of(SQUARE, source)
    console = Console(width=110, height=60, record=True, file=io.StringIO())
    console.print(render(judge_for(task_of(SQUARE)).judge(candidate), candidate))
    return console.export_text()


def write(folder: Path, source: str = SOFTMAX.source, plan: str = SOFTMAX.plan) -> Path:
    (folder / "kernel.cu").write_text(source)
    (folder / "plan.toml").write_text(plan)
    return folder


def test_a_wrong_value_shows_where_what_and_on_which_inputs() -> None:
    text = shown(SQUARE.source.replace("if (i < count)", "if (i < count - 1)"))
    for part in ("failed at stage numerics", "out[1002]", "expected", "got", "family nominal, seed 0", "1 of 1003"):
        assert part in text


def test_a_finding_quotes_the_line_of_the_source() -> None:
    text = shown(SQUARE.source.replace("if (i < count) ", "if (i <= count) "))
    assert "4 |     if (i <= count) out[i] = x[i] * x[i] + x[i];" in text


def test_a_compiler_error_has_a_caret_below_its_column() -> None:
    lines = shown(SQUARE.source.replace("+ x[i];", "+ y[i];")).splitlines()
    above = next(number for number, line in enumerate(lines) if "+ y[i];" in line)
    assert lines[above].index("y[i]") == lines[above + 1].index("^")


def test_a_good_program_shows_an_estimate_that_calls_itself_one() -> None:
    text = shown(SQUARE.source)
    assert "passed: estimated" in text and "H100" in text and "Bottleneck" in text


def test_a_verdict_fits_on_one_screen() -> None:
    assert len(shown(SQUARE.source).splitlines()) <= 40


@pytest.mark.parametrize("line", [0, -3, 99])
def test_no_line_is_quoted_where_there_is_none(line: int) -> None:
    assert quote("a\nb\n", line) == ""


def test_a_folder_is_judged_with_defaults_and_with_given_tunables(tmp_path: Path) -> None:
    judge = judge_for(task_of(SOFTMAX))
    judged = judge_folder(judge, write(tmp_path))
    assert judged.verdict.passed and judged.candidate.tunables == (("BLOCK", 64),)
    judged = judge_folder(judge, tmp_path, {"BLOCK": 128})
    assert judged.verdict.passed and judged.verdict.counters[0].block == (128, 1, 1)


@pytest.mark.parametrize(("tunables", "says"), [({"BLOK": 64}, "BLOCK"), ({"BLOCK": 65}, "65")])
def test_a_tunable_that_the_plan_does_not_know_is_refused(tmp_path: Path, tunables: dict[str, int], says: str) -> None:
    with pytest.raises(ProgramError, match=says):
        judge_folder(judge_for(task_of(SOFTMAX)), write(tmp_path), tunables)


def test_a_folder_without_a_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError):
        judge_folder(judge_for(task_of(SOFTMAX)), tmp_path)


def test_a_task_that_does_not_depend_on_its_inputs_is_marked() -> None:
    class Flat(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x, -1).sum(-1)

    admission = admit(task_from_module(Flat(), (torch.randn(4, 8),), name="flat"))
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(render(judge_for(task_of(SQUARE)).judge(candidate_of(SQUARE)), None, admission))
    assert "Marked: no family of inputs shows that the outputs depend on x" in console.export_text()
