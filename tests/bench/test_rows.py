"""What is written while a run goes on must be true, and must be there after a power cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.stories import ROWS, compared, estimated, failed, passed, record
from warpsmith.bench import BaselineTime, BenchFolder, Entry, Row, load_bench
from warpsmith.bench.row import NOT_COMPARED, decode_row, decode_run, encode_row, encode_run
from warpsmith.errors import SettingsError, UserError

RECORD = record([row.name for row in ROWS])


def own(row: Row) -> Row:
    return replace(row, fingerprint=RECORD.fingerprint)


def entry(row: Row) -> Entry:
    return Entry(row.name, "/somewhere.py", row.source_hash, row.level)


@pytest.mark.parametrize("row", [*ROWS, estimated("a"), passed("b", None, 1.0, marks=("ä\n", "b"))])
def test_a_row_is_one_line_and_comes_back(row: Row) -> None:
    text = encode_row(row)
    assert "\n" not in text
    assert decode_row(text) == row
    assert decode_run(encode_run(RECORD)) == RECORD


def test_a_row_cannot_lie() -> None:
    with pytest.raises(ValueError, match="status wrong, but seconds"):
        replace(ROWS[0], status="wrong")
    with pytest.raises(ValueError, match="status passed, but seconds None"):
        replace(ROWS[3], status="passed")
    with pytest.raises(ValueError, match="is no time"):
        replace(ROWS[0], seconds=0.0)
    with pytest.raises(ValueError, match="compared with baselines, but not passed"):
        replace(ROWS[3], comparisons=ROWS[0].comparisons)
    with pytest.raises(UserError, match="'fast' is not one of"):
        decode_row(encode_row(ROWS[3]).replace('"wrong"', '"fast"'))


def test_best_is_the_fastest_baseline_and_nothing_stands_for_it() -> None:
    row = passed("a", 1, eager=2.0, best=1.5)
    found = row.against("best")
    assert found is not None and found.baseline == "compile graph"
    assert row.against("compile") is None
    faster = BaselineTime("max-autotune graph", row.baselines[0].seconds and row.baselines[0].seconds / 10)
    assert replace(row, baselines=(*row.baselines, faster)).against("best") is None
    broken = BaselineTime("max-autotune graph", None, "cannot be captured")
    assert replace(row, baselines=(*row.baselines, broken)).against("best") == found
    named = replace(row, comparisons=(*row.comparisons, compared("best", 1.1)))
    again = named.against("best")
    assert again is not None and again.ratio == 1.1


def test_rows_are_found_again_and_the_last_of_a_task_counts(tmp_path: Path) -> None:
    with BenchFolder(tmp_path / "run", RECORD) as folder:
        for row in ROWS:
            folder.add(own(row))
        folder.add(own(passed(ROWS[3].name, 1, 1.5)))
        assert load_bench(tmp_path / "run").rows[3].passed
    bench = load_bench(tmp_path / "run")
    assert [row.name for row in bench.rows] == list(RECORD.tasks)
    assert bench.missing == ()
    assert (tmp_path / "run" / "rows.jsonl").read_text().count("\n") == 7


def test_done_means_same_source_and_perhaps_no_fault_of_the_machine(tmp_path: Path) -> None:
    crashed, wrong = ROWS[5], ROWS[3]
    unmeasured = passed("level1/1_fast", 1, 1.0, marks=(NOT_COMPARED,))
    with BenchFolder(tmp_path, RECORD) as folder:
        for row in (crashed, wrong, unmeasured):
            folder.add(own(row))
    with BenchFolder(tmp_path, RECORD) as folder:
        for row in (crashed, wrong, unmeasured):
            assert folder.done(entry(row), retry=False) == own(row)
        assert folder.done(entry(wrong), retry=True) == own(wrong)
        assert folder.done(entry(crashed), retry=True) is None
        assert folder.done(entry(unmeasured), retry=True) is None
        assert folder.done(replace(entry(wrong), source_hash="edited"), retry=False) is None
        assert folder.done(entry(ROWS[1]), retry=False) is None


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_last_line_costs_one_task_and_no_more(tmp_path: Path, cut: int) -> None:
    with BenchFolder(tmp_path, RECORD) as folder:
        folder.add(own(ROWS[0]))
        folder.add(own(ROWS[1]))
    file = tmp_path / "rows.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[:-1] if cut == 1 else data[:-cut])
    kept = 2 if cut == 1 else 1
    assert len(load_bench(tmp_path).rows) == kept
    with BenchFolder(tmp_path, RECORD) as folder:
        folder.add(own(ROWS[2]))
    assert [row.name for row in load_bench(tmp_path).rows][-1] == ROWS[2].name
    assert len(load_bench(tmp_path).rows) == kept + 1


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    with BenchFolder(tmp_path, RECORD) as folder:
        folder.add(own(ROWS[0]))
    file = tmp_path / "rows.jsonl"
    file.write_text("{broken\n" + file.read_text())
    with pytest.raises(UserError, match=r"rows.jsonl:1: not a row of a benchmark"):
        load_bench(tmp_path)


def test_rows_of_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    with BenchFolder(tmp_path, RECORD):
        pass
    for changed, said in (
        (replace(RECORD, settings=(("seed", "0"), ("budget", "30.0"))), "budget 60.0, now 30.0"),
        (replace(RECORD, regime="v0"), "regime v0.1, now v0"),
        (replace(RECORD, machine=replace(RECORD.machine, gpus=("NVIDIA H200",))), "NVIDIA H100, now NVIDIA H200"),
    ):
        with pytest.raises(SettingsError, match=said):
            BenchFolder(tmp_path, changed)
    with BenchFolder(tmp_path, replace(RECORD, tasks=("more",))) as folder:
        assert folder.record.tasks == (*RECORD.tasks, "more")
        assert len(folder.record.sessions) == 2


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with BenchFolder(tmp_path, RECORD), pytest.raises(SettingsError, match="another `warpsmith bench`"):
        BenchFolder(tmp_path, RECORD)
    with BenchFolder(tmp_path, RECORD):
        pass


def test_a_folder_without_a_run_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        load_bench(tmp_path)
    (tmp_path / "run.json").write_text('{"suite": 1}')
    with pytest.raises(UserError, match=r"run.json: not the record of a benchmark"):
        load_bench(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot write"):
        BenchFolder(tmp_path / "file", RECORD)


def test_a_failed_row_has_no_share() -> None:
    assert failed("a", 1).share is None
    assert passed("a", 1, 1.0).share == pytest.approx(0.5)
