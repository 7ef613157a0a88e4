"""A report of Nsight Compute is read for what it says, and a report that says nothing gives the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from warpsmith.errors import MachineError
from warpsmith.judge import ncu, ncu_names

DATA = Path(__file__).parents[1] / "device" / "data"
REPORT = (DATA / "ncu.csv").read_text(encoding="utf-8")
HEAD = '"ID","Kernel Name","Block Size","Grid Size"'


def report(**cells: tuple[str, str]) -> str:
    """A report of one launch; cells are units and values by the metrics' names, with `___` for a point."""
    names = [name.replace("___", ".") for name in cells]
    titles, units, values = names, [unit for unit, _ in cells.values()], [value for _, value in cells.values()]
    lines = [HEAD, ",".join(['""'] * 4), '"0","k","(32, 1, 1)","(1, 1, 1)"']
    return "\n".join(
        line + "".join(f',"{cell}"' for cell in row) for line, row in zip(lines, (titles, units, values), strict=True)
    )


def test_every_launch_is_read_with_its_shape_in_base_units() -> None:
    softmax, finish = ncu.parse(REPORT)
    assert (softmax.kernel, softmax.grid, softmax.block) == ("softmax", (4096, 1, 1), (256, 1, 1))
    assert softmax.seconds == pytest.approx(21.344e-6) and softmax.dram_read == 67_112_960
    assert dict(softmax.busy)["dram"] == pytest.approx(0.887) and softmax.occupancy == pytest.approx(0.813)
    assert softmax.registers == 32 and softmax.shared == 132 and softmax.occupancy_limit == "registers"
    assert finish.kernel == "finish" and finish.seconds == pytest.approx(2.24e-6)


def test_ratios_are_those_of_the_hardware() -> None:
    softmax = ncu.parse(REPORT)[0]
    assert softmax.load_sectors == 16.0 and softmax.load_bytes == 32.0 and softmax.divergence == pytest.approx(0.05)
    assert softmax.conflicts == pytest.approx(1.5), "16384 of 49152 wavefronts were conflicts"
    assert dict(softmax.operations)["fp32"] == 33_554_432 + 2 * 16_777_216, "a fused multiply-add is two operations"


def test_what_warps_wait_for_most_comes_first_in_words() -> None:
    stalls = ncu.parse(REPORT)[0].stalls
    assert [words for words, _ in stalls[:2]] == ["data from global or local memory", "the other warps at a barrier"]
    assert all(share > 0.0 for _, share in stalls)


def test_what_could_not_be_measured_is_none_and_not_zero() -> None:
    softmax, finish = ncu.parse(REPORT)
    assert "tensor" not in dict(softmax.busy) and softmax.store_bytes is None
    assert "l2" in dict(softmax.busy) and "l2" not in dict(finish.busy)
    bare = ncu.parse(report(gpu__time_duration___sum=("ns", "5")))[0]
    assert bare.seconds == pytest.approx(5e-9)
    assert bare.dram_read is None and bare.occupancy is None and bare.registers is None and bare.atomics is None
    assert bare.busy == () and bare.stalls == () and bare.operations == () and bare.occupancy_limit == ""


def test_only_the_kernels_asked_for_are_returned() -> None:
    assert [one.kernel for one in ncu.parse(REPORT, ["finish"])] == ["finish"]


@pytest.mark.parametrize(
    ("unit", "cell", "seconds"),
    [
        ("ns", "1,234", 1234e-9),
        ("nsecond", "1.234.567,5", 1234567.5e-9),
        ("us", "1\u202f234,5", 1234.5e-6),
        ("usecond", "12.345", 12.345e-6),
        ("us", "0,123", 0.123e-6),
        ("ms", "1'234.5", 1.2345),
        ("s", "2", 2.0),
    ],
)
def test_numbers_of_any_locale_and_unit(unit: str, cell: str, seconds: float) -> None:
    assert ncu.parse(report(gpu__time_duration___sum=(unit, cell)))[0].seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "==PROF== Connected to process 7\n==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access "
            "NVIDIA GPU Performance Counters on the target device 0.\n==WARNING== No kernels were profiled.",
            "administrators",
        ),
        ("==ERROR== Profiling failed because a driver resource was unavailable.", "another profiler"),
        ("==PROF== Disconnected from process 7\n==WARNING== No kernels were profiled.", "saw no kernel"),
        ("==ERROR== Failed to prepare kernel for profiling", "Failed to prepare kernel"),
        ("", "no report"),
    ],
)
def test_why_there_are_no_metrics_is_said_in_one_sentence(log: str, words: str) -> None:
    sentence = ncu.problem(log)
    assert sentence is not None and words in sentence and sentence.count("\n") == 0
    with pytest.raises(MachineError, match=words):
        ncu.parse(log)


def test_a_report_with_launches_has_no_problem_even_where_the_program_ended_badly() -> None:
    assert ncu.problem(REPORT + "==ERROR== The application returned an error code (1).\n") is None


def test_the_command_asks_for_every_metric_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncu, "find", lambda name: f"/tools/{name}")
    command = ncu.command("/tmp/report.csv", (9, 0))
    asked = command[command.index("--metrics") + 1].split(",")
    assert len(asked) == len(set(asked))
    assert command[0] == "/tools/ncu" and command[command.index("--log-file") + 1] == "/tmp/report.csv"
    titles = next(line for line in REPORT.splitlines() if line.startswith('"ID"'))
    assert set(asked) == {title.strip('"') for title in titles.split(",")[11:]}


def test_tensor_instructions_are_asked_for_by_the_names_of_the_architecture() -> None:
    def kinds(major: int) -> str:
        return " ".join(name for name in ncu_names.metrics((major, 0)) if "pipe_t" in name)

    assert "gmma" not in kinds(8) and "gmma" in kinds(9)
    assert "tensor_op" not in kinds(10) and "pipe_tc" in kinds(10) and kinds(12) == kinds(10)


def test_without_the_tool_the_machine_is_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncu, "find", lambda name: None)
    with pytest.raises(MachineError, match="not installed"):
        ncu.command("/tmp/report.csv", (9, 0))
