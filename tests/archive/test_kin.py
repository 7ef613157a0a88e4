"""Which tasks the archive takes to be alike, and what it tells of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import warpsmith.archive.migrations
from tests.samples import TASK, candidate, failed, passed, program
from warpsmith.archive import Archive, encode, kin
from warpsmith.records import Candidate, Graph, Lineage, Node, Ref, Task, TensorSpec


def task_of(*operators: str, size: int = 64) -> Task:
    """A chain of operators on a vector."""
    spec = TensorSpec("x", (size,), "float32")
    nodes: list[Node] = []
    for number, operator in enumerate(operators):
        before = nodes[-1].name if nodes else "x"
        nodes.append(Node(f"n{number}", operator, (Ref(before),), (), (replace(spec, name=f"n{number}"),)))
    last = Ref(nodes[-1].name if nodes else "x")
    graph = Graph((spec,), (), (), (), tuple(nodes), ((replace(spec, name="out"), last),))
    return replace(TASK, name=f"{' '.join(operators)} {size}", graph=graph)


def candidate_for(task: Task, variant: int = 0, recipe: str | None = "{}") -> Candidate:
    lineage = Lineage("builtin", "create", recipe=recipe and f'{{"variant": {variant}}}')
    return Candidate(task.key, program(variant), (("BLOCK", 128),), lineage)


def keep(archive: Archive, task: Task, *seconds: float, device: str = "H100", recipe: str | None = "{}") -> None:
    """Archive a candidate that passed for each time."""
    run = archive.start_run(task, "{}")
    for variant, time in enumerate(seconds):
        drawn = candidate_for(task, variant, recipe)
        archive.add_candidate(run, drawn)
        archive.add_verdict(run, passed(drawn, time), judge_version="1", device=device)


def names(archive: Archive, task: Task) -> list[str]:
    return list(dict.fromkeys(each.task_name for each in archive.precedents(task.graph, lambda device: 1.0)))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive.db") as opened:
        yield opened


def test_the_task_with_most_operators_in_common_comes_first_then_the_nearest_size(archive: Archive) -> None:
    for each in (task_of("gelu", "mm", "exp"), task_of("mm", size=4096), task_of("mm", size=100), task_of("sin")):
        keep(archive, each, 1e-6)
    assert names(archive, task_of("mm", size=128)) == ["mm 100", "mm 4096", "gelu mm exp 64"]
    assert names(archive, task_of("mm", size=2048)) == ["mm 4096", "mm 100", "gelu mm exp 64"]
    assert names(archive, task_of("cos")) == []


def test_however_many_tasks_there_are_few_are_read(archive: Archive) -> None:
    for size in range(1, 2 * kin.TASKS):
        keep(archive, task_of("mm", size=size), *(1e-6 * (n + 1) for n in range(kin.PROGRAMS + 2)))
    found = archive.precedents(task_of("mm", size=1000).graph, lambda device: 1.0)
    assert len(found) == kin.TASKS * kin.PROGRAMS
    assert found[0].task_name == f"mm {2 * kin.TASKS - 1}"


def test_the_fastest_programs_come_first_each_with_its_tunables(archive: Archive) -> None:
    like = task_of("mm")
    keep(archive, like, 3e-6, 1e-6, 2e-6)
    found = archive.precedents(task_of("mm", size=128).graph, lambda device: 1.0)
    assert [each.seconds for each in found] == [1e-6, 2e-6, 3e-6]
    assert [each.recipe for each in found] == ['{"variant": 1}', '{"variant": 2}', '{"variant": 0}']
    assert {each.tunables for each in found} == {(("BLOCK", 128),)}
    assert {each.graph for each in found} == {like.graph}
    assert found[0].candidate_key == candidate_for(like, 1).key


def test_what_failed_or_has_no_recipe_is_no_precedent(archive: Archive) -> None:
    wrong = candidate_for(task_of("mm"))
    run = archive.start_run(task_of("mm"), "{}")
    archive.add_candidate(run, wrong)
    archive.add_verdict(run, failed(wrong), judge_version="1", device="H100")
    keep(archive, task_of("mm", size=32), 1e-6, recipe=None)
    assert archive.precedents(task_of("mm", size=128).graph, lambda device: 1.0) == []


def test_the_nearest_devices_are_asked_and_others_are_not(archive: Archive) -> None:
    like = task_of("mm")
    for device in ("A100", "B200", "H100", "H200"):
        keep(archive, like, 1e-6, device=device)
    near = {"H100": 1.0, "H200": 0.9, "A100": 0.7, "B200": 0.0}
    assert [each.device for each in archive.precedents(like.graph, near.__getitem__)] == ["H100", "H200"]
    assert archive.precedents(like.graph, lambda device: 0.0) == []


def test_the_lineage_ends_where_another_task_begins(archive: Archive) -> None:
    keep(archive, task_of("mm"), 1e-6)
    donor = candidate_for(task_of("mm"))
    run = archive.start_run(TASK, "{}")
    child = replace(candidate(), lineage=Lineage("builtin", "inherit", parents=(donor.key,)))
    grandchild = candidate(1, parents=(child.key,))
    for drawn in (child, grandchild):
        archive.add_candidate(run, drawn)
        archive.add_verdict(run, passed(drawn), judge_version="1", device="H100")
    assert [each.candidate.key for each in archive.lineage(grandchild.key)] == [child.key, grandchild.key]
    assert archive.candidate(archive.candidate(child.key).lineage.parents[0]).task_key == task_of("mm").key


def test_tasks_of_an_older_archive_are_found_as_well(tmp_path: Path) -> None:
    place = tmp_path / "archive.db"
    engine = create_engine(f"sqlite:///{place}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(warpsmith.archive.migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    old = [task_of("mm", "mm", "exp", size=30), task_of()]
    with sqlite3.connect(place) as plain:
        for each in old:
            row = (each.key, each.name, "", "", "", encode(each.graph), encode(each.tolerance), 0, "2026-01-01")
            plain.execute("INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    plain.close()
    with Archive.open(place):
        pass
    with sqlite3.connect(place) as plain:
        found = plain.execute("SELECT task_key, operator, operators, elements FROM kin ORDER BY operator").fetchall()
    plain.close()
    assert found == [tuple(row.values()) for row in kin.kin_rows(old[0].key, old[0].graph)]
    assert [row[1:] for row in found] == [("exp", 2, 60.0), ("mm", 2, 60.0)]
