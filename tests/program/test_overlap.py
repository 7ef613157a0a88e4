"""Launches that begin early: written and read without loss, refused where nothing could wait, new to no old archive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from warpsmith.archive.codec import decode, encode
from warpsmith.device.catalog import gpu
from warpsmith.device.cuda.device import encode as for_the_runner
from warpsmith.device.cuda.layout import lay_out
from warpsmith.errors import ProgramError
from warpsmith.program import bind, format_plan, parse_plan
from warpsmith.program.kernels import Kernel
from warpsmith.records import BoundLaunch, Call, Launch, Plan, Program, View

H100, A100 = gpu("H100"), gpu("A100")
FIRST = Launch("first", ("1",), ("32",), ())
SECOND = Launch("second", ("1",), ("32",), (), overlap=True)
THIRD = Launch("third", ("1",), ("32",), ())


def plan(*launches: Launch, calls: tuple[Call, ...] = ()) -> Plan:
    return Plan((), (), (), launches, (), calls)


def product(after: int) -> Call:
    return Call("aten.mm", (View("x"), View("y")), View("out"), after=after)


def test_a_plan_says_which_launches_overlap_and_nothing_is_lost() -> None:
    text = format_plan(plan(FIRST, SECOND, THIRD))
    assert text.count("overlap = true") == 1
    assert parse_plan(text) == plan(FIRST, SECOND, THIRD)
    with pytest.raises(ProgramError, match="launch 2: overlap"):
        parse_plan(text.replace("overlap = true", "overlap = 1"))


def test_programs_without_overlap_keep_their_keys_and_their_texts_in_the_archive() -> None:
    """An archive that was written earlier knows its programs by these."""
    old, new = Program("// code", plan(FIRST, THIRD)), Program("// code", plan(FIRST, replace(THIRD, overlap=True)))
    assert old.key == "f7895d412a1f7640" and new.key != old.key
    assert "overlap" not in encode(old) and "overlap" not in format_plan(old.plan)
    assert [decode(Program, encode(program)) for program in (old, new)] == [old, new]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (plan(SECOND), "launch 1 (second): the first step"),
        (plan(FIRST, replace(SECOND, cooperative=True)), "launch 2 (second): a cooperative launch cannot overlap"),
        (plan(FIRST, SECOND, calls=(product(1),)), "directly before or after a library call"),
        (plan(FIRST, SECOND, calls=(product(2),)), "directly before or after a library call"),
        (plan(SECOND, calls=(product(0),)), "directly before or after a library call"),
    ],
)
def test_a_launch_without_one_to_wait_for_is_refused(wrong: Plan, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        format_plan(wrong)
    assert message in str(caught.value)


def test_calls_elsewhere_are_no_obstacle() -> None:
    four = plan(THIRD, FIRST, SECOND, THIRD, calls=(product(0), product(1), product(4)))
    assert parse_plan(format_plan(four)) == four


def test_overlap_needs_hopper_and_is_bound() -> None:
    assert [launch.overlap for launch in bind(plan(FIRST, SECOND, THIRD), {}, {}, H100).launches] == [
        False,
        True,
        False,
    ]
    with pytest.raises(
        ProgramError, match=r"launch 2 \(second\): overlap needs compute capability 9\.0; A100 has less"
    ):
        bind(plan(FIRST, SECOND), {}, {}, A100)


def test_the_runner_is_told() -> None:
    layout = lay_out([], [], [], 1, 512)
    for overlap in (False, True):
        bound = BoundLaunch("k", (1, 1, 1), (1, 1, 1), 0, (), overlap=overlap)
        assert for_the_runner(bound, Kernel("k", (), None, None), layout)["overlap"] is overlap
