"""A benchmark that finds the wrong tasks, or in another order each time, measures nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.stories import TASK
from warpsmith.bench import discover, regime
from warpsmith.errors import UserError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for level, names in {1: ("19_ReLU", "1_Square", "2_Standard"), 2: ("1_Conv", "76_Gemm"), 4: ("1_gpt",)}.items():
        folder = tmp_path / "KernelBench" / f"level{level}"
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.py").write_text(TASK + f"# {name}\n")
        (folder / "__init__.py").write_text(TASK)
    (tmp_path / "KernelBench" / "changelog").mkdir()
    return tmp_path


def names(*args: object, **kwargs: object) -> list[str]:
    return [entry.name for entry in discover(*args, **kwargs)]  # type: ignore[arg-type]


def test_a_checkout_is_in_natural_order_without_the_level_that_needs_a_network(checkout: Path) -> None:
    expected = ["level1/1_Square", "level1/2_Standard", "level1/19_ReLU", "level2/1_Conv", "level2/76_Gemm"]
    assert names(checkout) == names(checkout / "KernelBench") == expected
    entry = discover(checkout)[2]
    assert (entry.level, entry.number) == (1, 19)
    assert entry.path == checkout / "KernelBench" / "level1" / "19_ReLU.py"
    assert len({each.source_hash for each in discover(checkout)}) == 5


def test_levels_are_kept_or_missed(checkout: Path) -> None:
    assert names(checkout, levels=[2]) == ["level2/1_Conv", "level2/76_Gemm"]
    assert names(checkout, levels=[4]) == ["level4/1_gpt"]
    assert names(checkout / "KernelBench" / "level2") == ["level2/1_Conv", "level2/76_Gemm"]
    with pytest.raises(UserError, match="no level 3"):
        discover(checkout, levels=[1, 3])


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (["19"], ["level1/19_ReLU"]),
        (["1"], ["level1/1_Square", "level2/1_Conv"]),
        (["2/1"], ["level2/1_Conv"]),
        (["level2/1"], ["level2/1_Conv"]),
        (["1/1-2"], ["level1/1_Square", "level1/2_Standard"]),
        (["*relu*", "*ReLU*"], None),
        (["*ReLU*", "76"], ["level1/19_ReLU", "level2/76_Gemm"]),
        (["level1/*S*"], ["level1/1_Square", "level1/2_Standard"]),
        (["2/*"], ["level2/1_Conv", "level2/76_Gemm"]),
        (["all"], ["level1/1_Square", "level1/2_Standard", "level1/19_ReLU", "level2/1_Conv", "level2/76_Gemm"]),
    ],
)
def test_select(checkout: Path, select: list[str], expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(UserError, match=r"'\*relu\*' names none of the 5 tasks"):
            discover(checkout, select=select)
    else:
        assert names(checkout, select=select) == expected


def test_any_folder_of_task_files(tmp_path: Path) -> None:
    (tmp_path / "b10.py").write_text(TASK)
    (tmp_path / "b9.py").write_text(TASK)
    (tmp_path / "helpers.py").write_text("def shared(): ...\n")
    (tmp_path / "broken.py").write_text("def get_inputs(:\n")
    (tmp_path / "value.py").write_text("example_inputs = [1]\n")
    assert names(tmp_path) == ["b9", "b10", "broken", "value"]
    assert names(tmp_path / "b9.py") == ["b9"]


def test_a_list_names_files_beside_it_and_classes(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.py").write_text(TASK)
    listed = tmp_path / "list.txt"
    listed.write_text("# what matters\ntasks/a.py\n\ntasks/a.py:Model  # by name\n")
    entries = discover(listed)
    assert [entry.name for entry in entries] == ["a", "a:Model"]
    assert entries[1].target == f"{tmp_path}/tasks/a.py:Model"
    assert entries[1].path == entries[0].path
    assert entries[1].source_hash != entries[0].source_hash
    listed.write_text("tasks/a.py\ntasks/b.py\n")
    with pytest.raises(UserError, match=r"list.txt:2: lists tasks/b.py"):
        discover(listed)
    listed.write_text("tasks/a.py\ntasks/a.py\n")
    with pytest.raises(UserError, match="both be called a"):
        discover(listed)


def test_nothing_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        discover(tmp_path / "absent")
    with pytest.raises(UserError, match="no tasks here"):
        discover(tmp_path)


def write_sizes(checkout: Path, batch: int, dim: int, n: str) -> None:
    folder = checkout / "KernelBench" / "level1"
    (folder / "19_ReLU.py").write_text(f"{TASK}batch_size = {batch}\ndim = {dim}\n")
    (folder / "1_Square.py").write_text(f"{TASK}N = {n}\n")
    (checkout / "KernelBench" / "level2" / "1_Conv.py").unlink(missing_ok=True)


def test_the_regime_is_told_by_sizes_even_of_files_that_are_not_selected(checkout: Path) -> None:
    write_sizes(checkout, 16, 16384, "2048")
    assert regime(discover(checkout, select=["2"])) == "v0"
    write_sizes(checkout, 4096, 393216, "2048 * 2")
    assert regime(discover(checkout, levels=[2])) == "v0.1"
    write_sizes(checkout, 4096, 393216, "2048")
    assert regime(discover(checkout)) == "other", "two witnesses contradict each other"
    write_sizes(checkout, 7, 7, "7")
    assert regime(discover(checkout)) == "other"


def test_other_tasks_have_no_regime(tmp_path: Path) -> None:
    (tmp_path / "19_ReLU.py").write_text(f"{TASK}batch_size = 16\ndim = 16384\n")
    assert regime(discover(tmp_path)) == "other"
