"""The worked example of docs/program.md does what the page says, and the page names everything that there is."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from warpsmith.program import FLAGS, parse_plan
from warpsmith.program.arithmetic import FUNCTIONS
from warpsmith.program.library import LIBRARY
from warpsmith.program.validate import DEVICE_PROPERTIES

PAGE = (Path(__file__).parents[2] / "docs" / "program.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_worked_example_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "row_sum").mkdir()
    (tmp_path / "row_sum" / "kernel.cu").write_text(block("cuda"))
    (tmp_path / "row_sum" / "plan.toml").write_text(block("toml"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block("python"), "docs/program.md", "exec"), {})
    assert printed.getvalue() == block("text")


def test_the_hybrid_example_is_a_plan() -> None:
    """Its steps run in the order that the page's comments say."""
    text = next(found for found in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "[[call]]" in found)
    plan = parse_plan(text)
    assert [type(step).__name__ for step in plan.steps] == ["Call", "Launch", "Call"]


def test_the_page_names_every_operator_that_may_be_called_and_its_options() -> None:
    for name, operator in LIBRARY.items():
        assert f"`{name}`" in PAGE
        assert all(f"`{option}`" in PAGE for option in operator.options)


def test_the_page_names_every_function_property_and_flag() -> None:
    for name in (*FUNCTIONS, *DEVICE_PROPERTIES):
        assert f"`{name}" in PAGE
    for flag in FLAGS:
        assert f"`{flag.partition('=')[0]}" in PAGE
