"""Library calls on their way to the runner and back: what it is told of them, and what their share of the time is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from tests.author.conftest import GPU
from tests.device.fake_runner import FakeRunner
from warpsmith import wire
from warpsmith.device.cuda import runner
from warpsmith.device.cuda.arena import Arena
from warpsmith.device.cuda.device import encode_call, finding_of
from warpsmith.device.cuda.layout import lay_out
from warpsmith.device.cuda.process import Fault
from warpsmith.device.cuda.series import KERNELS_OF_A_CALL, MOST_NODES, Series
from warpsmith.device.library import compute, view_of
from warpsmith.program import bind, parse_plan
from warpsmith.records import BoundPlan, BoundView, TensorSpec

X, W, OUT = TensorSpec("x", (5, 4), "float32"), TensorSpec("w", (3, 4), "float32"), TensorSpec("out", (5, 3), "float32")
PLAN = """
[[call]]
op = "aten.mm"
args = ["x", { tensor = "w", shape = [4, 3], strides = [1, 4] }]
out = "out"
"""


def bound() -> BoundPlan:
    return bind(parse_plan(PLAN), {spec.name: spec for spec in (X, W, OUT)}, {}, GPU)


def test_the_runner_is_told_all_that_it_needs_to_find_the_tensors_of_a_slot() -> None:
    """Carries the message out on a CPU, as the runner does on its arena, from nothing but what travels as JSON."""
    layout = lay_out([X, W], [OUT], [], 3, 512)
    message = json.loads(json.dumps(encode_call(bound().calls[0], layout)))
    memory = torch.zeros(layout.nbytes, dtype=torch.uint8)
    slot, x, w = 2, torch.randn(5, 4), torch.randn(3, 4)
    for name, value in (("x", x), ("w", w)):
        start = layout.offset(name, slot)
        memory[start : start + value.nbytes] = value.view(-1).view(torch.uint8)

    def tensor(view: dict[str, Any]) -> torch.Tensor:
        start = layout.base + slot * layout.stride + view["start"]
        whole = memory[start : start + view["bytes"]].view(getattr(torch, message["dtype"]))
        return view_of(whole, BoundView("", tuple(view["shape"]), tuple(view["strides"]), view["offset"]))

    out = tensor(message["out"])
    compute(message["op"], [tensor(view) for view in message["args"]], out, dict(message["options"]), message["tf32"])
    torch.testing.assert_close(out, x @ w.T)
    assert message["after"] == 0 and message["tf32"] is False


class Clocked(FakeRunner):
    """Every call is one kernel of ours, then twice as long in the library."""

    def _activity(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        own = [[30 * number + 1, 30 * number + 11] for number in range(len(self.order))]
        library = [[start + 10, start + 30] for start, _ in own]
        return {"spans": [span for pair in zip(own, library) for span in pair], "library": library}, []


def series(launches: int, library_calls: int, kind: type[FakeRunner] = Clocked) -> Series:
    layout = lay_out([X, W], [OUT], [], 4, 512)
    made = kind(layout)
    arena = Arena(layout, made, "cpu", share=False)  # type: ignore[arg-type]
    return Series(made, arena, launches, 1 << 20, random.Random(1), library_calls)  # type: ignore[arg-type]


def test_the_share_of_the_library_is_read_from_the_names_of_kernels() -> None:
    hybrid, pure = series(1, 1), series(2, 0)
    assert hybrid.activity() == pytest.approx(30e-9) and hybrid.library_share == pytest.approx(2 / 3)
    assert hybrid.launch_seconds == ()
    assert pure.activity() == pytest.approx(30e-9) and pure.library_share is None
    assert pure.launch_seconds == pytest.approx((10e-9, 20e-9))


def test_what_a_call_launches_counts_where_graphs_are_kept_short() -> None:
    assert series(1, 1).launches == 1 + KERNELS_OF_A_CALL
    assert series(0, MOST_NODES // KERNELS_OF_A_CALL).calls == 1


def test_without_a_profiler_no_share_is_made_up() -> None:
    class Blind(FakeRunner):
        def _activity(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
            return {"spans": None}, []

    blind = series(1, 1, Blind)
    assert blind.activity() is None and blind.library_share is None


def test_a_call_that_the_library_refuses_is_a_finding() -> None:
    finding = finding_of(Fault("library", "aten.mm: not like this"), bound())
    assert finding.kind == "invalid_launch" and "aten.mm: not like this" in finding.message


class Recorded:
    """Stands in for a library call of the runner, which needs a GPU."""

    made: ClassVar[list[str]] = []

    def __init__(self, message: dict[str, Any], place: Callable[[int, int], int], ordinal: int, stream: object) -> None:
        self.name = message["op"]

    def launch(self, stream: object, slot: int) -> None:
        self.made.append(self.name)


def test_the_runner_puts_calls_in_their_places_and_makes_each_once_before_anything_is_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = pytest.importorskip("warpsmith.device.cuda.library")
    monkeypatch.setattr(module, "LibraryCall", Recorded)
    monkeypatch.setattr(runner, "checked", lambda *_: None)
    monkeypatch.setattr(runner.cu, "cuStreamSynchronize", lambda _: None)
    monkeypatch.setattr(Recorded, "made", [])
    made = runner.Runner.__new__(runner.Runner)
    made.ordinal, made.stream = 0, None
    made.steps = [SimpleNamespace(name=name) for name in ("k1", "k2")]  # type: ignore[misc]
    places = (("first", 0), ("second", 0), ("third", 1), ("last", 2))
    made._load_calls([{"op": name, "after": after} for name, after in places], 512, 4096)
    assert [step.name for step in made.steps] == ["first", "second", "k1", "third", "k2", "last"]
    assert sorted(Recorded.made) == ["first", "last", "second", "third"]
