"""The driven tasks: every prepared answer fits its task, lands beside the question it answers, and is given its due."""

from __future__ import annotations

import inspect
import math
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.samples import BOUND, candidate, failed, passed
from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.exchange import ask
from warpsmith.judge import Judge
from warpsmith.judge.folder import read_candidate
from warpsmith.program import Builder, bind, misfits, read_program
from warpsmith.records import Judged, Lineage, TensorSpec
from warpsmith.settings import load_settings
from warpsmith.task import load_task

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools" / "gpu"
EXAMPLES = ROOT / "examples" / "agents"
TASKS = sorted(file.stem for file in EXAMPLES.glob("*.py"))
ANSWERS = sorted(file.parent for file in EXAMPLES.glob("answers/*/*/*/kernel.cu"))
H200 = gpu("H200")
Capture = pytest.CaptureFixture[str]
_MOST_BYTES = 2e9

sys.path.insert(0, str(TOOLS))
import agents_table  # noqa: E402  (a script beside others, no package)
import drive_agents  # noqa: E402


def named(folder: Path) -> str:
    return folder.relative_to(EXAMPLES / "answers").as_posix()


def at_full_size(file: Path) -> dict[str, TensorSpec]:
    """All tensors of a task, of which none is drawn: that would take seconds."""
    names = runpy.run_path(str(file))
    with torch.device("meta"):
        model = names["Model"](*names["get_init_inputs"]())
        inputs = dict(zip(inspect.signature(model.forward).parameters, names["get_inputs"]()))
        parameters = {name.replace(".", "_"): value for name, value in model.named_parameters()}
        tensors = {**inputs, **parameters, "out": model(*inputs.values())}
    return {
        name: TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in tensors.items()
    }


def test_every_task_has_answers_for_several_generations() -> None:
    assert len(TASKS) >= 6
    for task in TASKS:
        assert {folder.parent.name for folder in ANSWERS if folder.parents[1].name == task} >= {"1", "2"}


@pytest.mark.parametrize("name", TASKS)
def test_answers_fit_the_task_at_the_size_that_is_driven(name: str, tmp_path: Path) -> None:
    tensors = at_full_size(EXAMPLES / f"{name}.py")
    assert sum(spec.nbytes for spec in tensors.values()) < _MOST_BYTES
    with Builder(tmp_path) as builder:
        for folder in (each for each in ANSWERS if each.parents[1].name == name):
            program = read_program(folder)
            tunables = dict(program.plan.defaults)
            build = builder.build(program, tunables, "sm_90a")
            plan = bind(program.plan, tensors, tunables, H200)
            assert build.ok and misfits(build, plan, H200.shared_per_block) == (), named(folder)
            assert [kernel.name for kernel in build.resources if kernel.spill_stores] == [], named(folder)
            assert (folder / "note.md").read_text().strip()


def test_a_small_copy_is_the_same_module_and_answers_are_right_about_it(tmp_path: Path) -> None:
    task = load_task(drive_agents.small_copy(EXAMPLES / "small_products.py", tmp_path / "small"))
    assert task.graph.results[0].shape == (22, 16, 16)
    with Builder(tmp_path / "cache") as builder:
        judge = Judge(task, Simulator(H200), builder)
        verdict = judge.judge(read_candidate(task, EXAMPLES / "answers" / "small_products" / "3" / "cross"))
    assert verdict.passed, verdict.failure


def test_prepared_answers_come_beside_the_questions_that_they_fit_and_only_once(tmp_path: Path) -> None:
    module = drive_agents.small_copy(EXAMPLES / "small_products.py", tmp_path / "small")
    settings = load_settings(archive=str(tmp_path / "archive.db"), cache=tmp_path / "cache", simulate=True)
    ask(module, tmp_path / "g", settings, slots=2)
    prepared = tmp_path / "prepared"
    for number, operator in enumerate(("translate", "translate-2", "rewrite", "cross")):
        (prepared / operator).mkdir(parents=True)
        (prepared / operator / "kernel.cu").write_text(f"// {number}")
    assert drive_agents.place(prepared, tmp_path / "g") == 4
    placed = {path.parent.relative_to(tmp_path / "g").as_posix(): path.read_text() for path in
              sorted((tmp_path / "g").glob("*/answer*/kernel.cu"))}  # fmt: skip
    assert placed == {
        "01-rewrite/answer": "// 3",
        "01-rewrite/answer-2": "// 2",
        "02-translate/answer": "// 0",
        "02-translate/answer-2": "// 1",
    }, "nobody asks for a cross, so that it comes beside the first question"
    assert drive_agents.place(prepared, tmp_path / "g") == 0


def by(author: str, variant: int, seconds: float | None, operator: str = "rewrite", generation: int = 0) -> Judged:
    drawn = replace(candidate(variant), lineage=Lineage(author, operator, (), generation))
    return Judged(drawn, passed(drawn, seconds) if seconds else failed(drawn))


def tuned(variant: int, seconds: float) -> Judged:
    drawn = replace(candidate(variant), tunables=(("BLOCK", 512),), lineage=Lineage("search", "tune", (), 9))
    return Judged(drawn, passed(drawn, seconds))


HISTORY = [
    by("builtin", 1, 8e-6, "create"),
    by("agent", 2, None, "translate", 1),
    by("agent", 3, 4e-6, "translate", 1),
    tuned(1, 6e-6),
    by("agent", 4, 2e-6, "rewrite", 5),
    tuned(4, 1e-6),
]


def row(baselines: dict[str, float]) -> agents_table.Row:
    return agents_table.row_of("relu", BOUND, HISTORY, "agent", {1: 1, 2: 5}, baselines)


def test_a_program_counts_for_who_wrote_it_and_tunables_do_not_change_that() -> None:
    found = row({})
    assert found.builtin == 6e-6
    assert found.agent == {1: 4e-6, 2: 1e-6}


def test_an_operator_gains_what_it_takes_off_the_best_before_it() -> None:
    gains = row({}).gains
    assert {name: (gain.judged, gain.passed, gain.improved, gain.factor) for name, gain in gains.items()} == {
        "builtin, create": (1, 1, 1, 1.0),
        "agent, translate": (2, 1, 1, pytest.approx(2.0)),
        "search, tune of builtin": (1, 1, 0, 1.0),
        "search, tune of agent": (1, 1, 1, pytest.approx(2.0)),
        "agent, rewrite": (1, 1, 1, pytest.approx(2.0)),
    }


def test_the_table_has_the_times_of_both_authors_and_of_pytorch() -> None:
    table = agents_table.render([row({"eager": 5e-6, "compile": 3e-6})], "measured on H200")
    cells = "5.00 µs | 3.00 µs | 6.00 µs | 4.00 µs | 1.00 µs | 1.4% of the bound, 6.00 x built-in, 5.00 x eager"
    assert cells in table and table.startswith("Times measured on H200.")
    nothing = agents_table.row_of("relu", BOUND, [by("agent", 2, None)], "agent", {1: 1}, {})
    assert nothing.builtin == math.inf and "| – | – | – | – | – |" in agents_table.render([nothing], "estimated")


def test_a_task_that_is_not_there_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "argv", ["drive_agents.py", str(tmp_path / "out"), "--task", "nothing"])
    with pytest.raises(SystemExit):
        drive_agents.main()
    assert "no such tasks" in capsys.readouterr().err and not (tmp_path / "out").exists()
