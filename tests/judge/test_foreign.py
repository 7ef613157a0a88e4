"""Solutions with host code: who is given what, what is believed, and how kinds of modules are handled."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from warpsmith.device.catalog import gpu
from warpsmith.errors import MachineError, TaskError
from warpsmith.judge import sandbox
from warpsmith.judge.foreign import judge_foreign
from warpsmith.judge.foreign.bits import Bank, Layout, total, totals
from warpsmith.judge.foreign.calls import Caller
from warpsmith.judge.foreign.claims import profile_of
from warpsmith.judge.foreign.driver import decode, encode
from warpsmith.judge.foreign.form import form_of, matched
from warpsmith.judge.foreign.overhead import Overhead
from warpsmith.judge.foreign.process import Fault, template
from warpsmith.judge.foreign.series import Series, least_seconds
from warpsmith.judge.foreign.wires import notes
from warpsmith.judge.sandbox import REQUIRED, Limits, capabilities
from warpsmith.records import Bound, Failure, Stage, Task, Timing, Verdict
from warpsmith.task import load_task, task_from_module

torch.set_num_threads(1)
needs_sandbox = pytest.mark.skipif(not set(capabilities()) >= REQUIRED, reason="this machine refuses a sandbox")
LIMITS = Limits(data_bytes=4 << 30, call_seconds=20.0)
FEW = ("nominal", "normal")


def judged(task: Task, text: str, families: tuple[str, ...] = FEW, limits: Limits = LIMITS) -> Verdict:
    header = "import torch\nfrom torch import nn\n"
    return judge_foreign(task, header + textwrap.dedent(text), seed=3, families=families, limits=limits)


def reason(verdict: Verdict) -> str:
    return "passed" if verdict.failure is None else f"{verdict.failure.stage.name.lower()}: {verdict.failure.reason}"


def test_a_module_that_draws_masks_is_refused() -> None:
    """A solution draws other masks than those that are due: every honest one would be called wrong."""
    task = task_from_module(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), torch.randn(3, 4))
    with pytest.raises(TaskError, match=r"dropout in training mode.*draws masks of its own"):
        judged(task, "class ModelNew(nn.Sequential): pass")


def write(folder: Path, text: str) -> Task:
    file = folder / "module.py"
    file.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(text))
    return load_task(file)


@pytest.fixture(scope="module")
def doubled() -> Task:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(x) * 2.0

    return task_from_module(Doubled(), (torch.randn(6, 10),))


DOUBLED = """
class ModelNew(nn.Module):
    def forward(self, x):
        return 2.0 * torch.exp(x)
"""


@needs_sandbox
def test_a_verdict_says_that_host_code_is_not_contained(doubled: Task) -> None:
    verdict = judged(doubled, DOUBLED)
    assert verdict.passed and not verdict.contained
    assert verdict.timing is not None and verdict.timing.source == "measured"
    assert "not contained" in verdict.profile.advice
    assert [result.family for result in verdict.families].count("normal") >= 1


@needs_sandbox
def test_constructor_arguments_numbers_and_keywords_come_from_the_task(tmp_path: Path) -> None:
    task = write(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self, width, scale):
                super().__init__()
                self.scale = scale
                self.weight = nn.Parameter(torch.randn(width, 5))
            def forward(self, x, power, y):
                return {"a": (x + y[0]) @ self.weight * self.scale, "b": y[1] * power}
        def get_init_inputs():
            return [7, 0.5]
        def get_inputs():
            return [torch.randn(4, 7), 3.0, [torch.randn(7), torch.randn(4)]]
        """,
    )
    good = """
    class ModelNew(nn.Module):
        def __init__(self, width, scale):
            super().__init__()
            assert (width, scale) == (7, 0.5)
            self.w = nn.Parameter(torch.randn(width, 5))
        def forward(self, x, power, y):
            assert isinstance(y, list) and power == 3.0
            return {"a": 0.5 * torch.mm(x + y[0], self.w), "b": power * y[1]}
    """
    assert reason(judged(task, good)) == "passed"
    assert reason(judged(task, good.replace('{"a": 0.5', '{"a": 0.25'))) == "run: wrong_value"
    assert reason(judged(task, good.replace('"b": power * y[1]', '"b": None'))) == "run: missing_output"


@needs_sandbox
def test_parameters_are_redrawn_by_name_or_order(tmp_path: Path) -> None:
    """A gain of 1 that is left out must show, whatever the solution calls its parameters."""
    task = write(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.gain = nn.Parameter(torch.ones(10))
            def forward(self, x):
                return torch.tanh(x) * self.gain
        def get_inputs():
            return [torch.randn(6, 10)]
        """,
    )
    renamed = """
    class ModelNew(nn.Module):
        def __init__(self):
            super().__init__()
            self.g = nn.Parameter(torch.ones(10))
        def forward(self, x):
            return torch.tanh(x) * self.g
    """
    assert reason(judged(task, renamed)) == "passed"
    assert reason(judged(task, renamed.replace(" * self.g", ""))) == "run: wrong_value"
    without = judged(task, "class ModelNew(nn.Module):\n    def forward(self, x): return torch.tanh(x)")
    assert without.passed and "own parameters only" in without.profile.advice


@needs_sandbox
def test_running_statistics_are_results_and_start_anew_in_every_call() -> None:
    task = task_from_module(nn.BatchNorm1d(5), (torch.randn(16, 5),))
    good = """
    class ModelNew(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(5)
            self.weight, self.bias = self.norm.weight, self.norm.bias
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, getattr(self.norm, name))
        def forward(self, x):
            return self.norm(x)
    """
    verdict = judged(task, good)
    assert reason(verdict) == "passed", verdict.failure
    frozen = good.replace(
        "return self.norm(x)", "return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True)"
    )
    assert reason(judged(task, frozen)) == "run: wrong_value"


@needs_sandbox
def test_what_one_solution_leaves_behind_the_next_does_not_find(doubled: Task) -> None:
    text = """
    import os, pathlib, sys
    places = [pathlib.Path(p) for p in ("/tmp/left", "/dev/shm/left", os.environ["HOME"] + "/left", "/var/tmp/left")]
    assert not any(place.exists() for place in places), "found"
    for place in places:
        place.write_text("left")
    assert not hasattr(torch, "left")
    torch.left = sys.left = 1
    class ModelNew(nn.Module):
        def forward(self, x):
            return torch.exp(x)
    """
    for _ in range(2):
        assert reason(judged(doubled, text)) == "run: wrong_value"


@needs_sandbox
def test_expected_outputs_and_seeds_are_not_where_the_solution_is(doubled: Task) -> None:
    """Everything reachable in its process is searched for a tensor that holds the answer to the first inputs."""
    text = """
    import gc
    class ModelNew(nn.Module):
        def forward(self, x):
            due = 2.0 * torch.exp(x)
            for each in gc.get_objects():
                if isinstance(each, torch.Tensor) and each is not due and each.numel() == x.numel():
                    if torch.allclose(each.reshape(x.shape).float(), due, rtol=1e-2):
                        raise LookupError("the answer")
                if isinstance(each, dict) and any(str(key).startswith(("seed", "expected", "tolerance")) and type(value) is int for key, value in list(each.items())):
                    if each.get("seed") not in (None, 42):
                        raise LookupError("a seed")
            return due
    """
    assert reason(judged(doubled, text)) == "passed"


@needs_sandbox
def test_a_crash_says_how_and_the_next_solution_is_judged(doubled: Task) -> None:
    crash = judged(doubled, "import os, signal\nprint('last words', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)")
    assert reason(crash) == "build: died"
    assert "last words" in crash.failure.message
    error = judged(doubled, "class ModelNew(nn.Module):\n    def forward(self, x):\n        return x + undefined")
    assert reason(error) == "run: raised"
    assert "undefined" in error.failure.message and "line 5" in error.failure.message
    assert reason(judged(doubled, "def broken(:")) == "build: syntax_error"
    assert reason(judged(doubled, "class Model(nn.Module): pass")) == "build: no_model"
    assert reason(judged(doubled, "raise SystemExit(0)")) == "build: raised"
    assert reason(judged(doubled, DOUBLED)) == "passed"


@needs_sandbox
def test_a_solution_that_does_not_read_its_pipe_cannot_block_the_judge() -> None:
    """Inputs larger than a pipe's buffer, and a solution that reads no more: the write must end with the time limit."""

    class Big(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2.0

    task = task_from_module(Big(), (torch.randn(1 << 18),))
    deaf = """
    from warpsmith import wire
    import time
    wire.receive = lambda *_, **__: time.sleep(60)
    class ModelNew(nn.Module):
        def forward(self, x): return x
    """
    assert reason(judged(task, deaf, limits=Limits(call_seconds=1.0))) == "run: timeout"


@needs_sandbox
def test_text_decides_nothing_but_is_told(doubled: Task) -> None:
    verdict = judged(doubled, "import subprocess, ctypes  # torch.cuda.Event\n" + DOUBLED)
    assert verdict.passed and "subprocess" in verdict.profile.advice
    failed = judged(doubled, "import subprocess\n" + DOUBLED.replace("2.0", "3.0"))
    assert reason(failed) == "run: wrong_value" and "subprocess" in failed.failure.message
    assert notes("x = 1") == ()


def test_a_machine_that_refuses_a_sandbox_runs_nothing(doubled: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "REQUIRED", frozenset({"a moat"}))
    with pytest.raises(MachineError, match="no a moat"):
        judge_foreign(doubled, "open('/tmp/ran', 'w')", seed=1, limits=LIMITS)
    insisted = judge_foreign(doubled, "import torch\n" + "x = (", seed=1, limits=LIMITS, unsandboxed=True)
    assert reason(insisted) == "build: syntax_error"


def test_a_gpu_must_be_named(doubled: Task) -> None:
    with pytest.raises(ValueError, match="which GPU"):
        judge_foreign(doubled, DOUBLED, seed=1, device="cuda")


def test_arguments_that_cannot_be_sent_are_the_callers_mistake(doubled: Task) -> None:
    with pytest.raises(TaskError, match="an argument of type object"):
        form_of(doubled, init=[object()])
    with pytest.raises(TaskError, match="tensors in its call only"):
        form_of(doubled, init=[torch.zeros(1)])


def test_arguments_survive_the_way_there() -> None:
    value = ([1, 2.5, None, "text", (True, torch.float16)], {"k": (torch.ones(2), [torch.zeros(1)])})
    tensors: list[torch.Tensor] = []
    back = decode(encode(value, tensors), tensors)
    assert back[0] == value[0] and isinstance(back[0][4], tuple)
    assert back[1]["k"][0] is value[1]["k"][0] and len(tensors) == 2


def test_state_corresponds_by_name_then_by_order_or_not_at_all() -> None:
    task = task_from_module(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), (torch.randn(2, 3),))
    shapes = [[4, 3], [4], [4, 4], [4]]
    own = ["0.weight", "0.bias", "1.weight", "1.bias"]
    names = [spec.name for spec in task.graph.parameters]
    rows = [["parameter", name, shape, "float32"] for name, shape in zip(["a", "b", "c", "d"], shapes)]
    assert matched(task, rows) == dict(zip(names, ["a", "b", "c", "d"]))
    assert matched(task, rows[::-1]) is None
    assert matched(task, rows[:3]) is None
    linear = task_from_module(nn.Linear(4, 4), (torch.randn(2, 4),))
    swapped = [
        ["parameter", "bias", [4], "float32"],
        ["parameter", "weight", [4, 4], "float32"],
        ["buffer", "more", [], "int64"],
    ]
    assert matched(linear, swapped) == {"weight": "weight", "bias": "bias"}
    assert own  # the names that Sequential gives hold digits first, so only their order can be used


MIXED = (
    Layout((16, 40), torch.float32),
    Layout((3, 5), torch.bool),
    Layout((), torch.int64),
    Layout((1025, 1030), torch.float32),  # Large enough to change by sectors, and no multiple of one.
    Layout((2, 13), torch.bfloat16),
)


def drawn(layout: Layout, seed: int) -> torch.Tensor:
    values = torch.randint(0, 2, layout.shape, generator=torch.Generator().manual_seed(seed))
    return values.to(layout.dtype) + 2 * seed if layout.dtype != torch.bool else values.bool()


class Wide(nn.Module):
    """Takes one input of each kind."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([each.double().sum() for each in inputs])


@pytest.fixture(scope="module")
def wide() -> Caller:
    """Speaks to nobody: what is sealed does not depend on who gets it."""
    task = task_from_module(Wide(), tuple(drawn(layout, 9) for layout in MIXED))
    return Caller(task, form_of(task), _Silent(), LIMITS, "cpu")


@pytest.mark.parametrize("chosen", [[2, 0], [1], []])
def test_what_is_unsealed_is_what_the_judge_takes_for_the_input(wide: Caller, chosen: list[int]) -> None:
    slots = [[drawn(layout, seed) for layout in MIXED] for seed in range(3)]
    others = [[drawn(layout, 10 + seed) for layout in MIXED] for seed in range(len(chosen))]
    sealed, seen = wide.seal([slots[slot] for slot in chosen], others, len(slots))
    generator = torch.Generator().manual_seed(sealed.key)
    for number, layout in enumerate(MIXED):
        bank = Bank(layout, len(slots), torch.device("cpu"))
        held = [bank.slot(slot) for slot in range(len(slots))]
        for tensor, inputs in zip(held, slots):
            tensor.copy_(inputs[number])
        bank.seal(sealed.words[number])
        bank.unseal(generator, torch.tensor(chosen, dtype=torch.int64))
        for slot, tensor in enumerate(held):
            due = seen[chosen.index(slot)][number] if slot in chosen else slots[slot][number]
            assert torch.equal(tensor, due) and tensor.is_contiguous() and tensor._base is None
            if tensor.numel():
                assert tensor.data_ptr() % 16 == held[0].data_ptr() % 16


def test_an_eighth_of_every_input_comes_from_another_draw(wide: Caller) -> None:
    """Even where there is one element only. Values stay valid: those of a mask are truth values."""
    zeros = [[torch.zeros(layout.shape, dtype=layout.dtype) for layout in MIXED] for _ in range(2)]
    ones = [[torch.ones_like(each) for each in row] for row in zeros]
    _, seen = wide.seal(zeros, ones, 2)
    for number, layout in enumerate(MIXED):
        first, second = (seen[call][number] for call in range(2))
        for each in (first, second):
            assert int(each.sum(dtype=torch.float64)) * 8 >= layout.numel - 7 * (layout.run - 1)
            assert set(each.reshape(-1).tolist()) <= {0, 1}
        if layout.numel > 100:
            assert not torch.equal(first, second)


def test_what_is_sealed_tells_neither_values_nor_places_nor_number(wide: Caller) -> None:
    """The other draws are all zero, so what is sealed is the pad itself, where there is a call and where there is not."""
    row = [torch.zeros(layout.shape, dtype=layout.dtype) for layout in MIXED]
    words = [wide.seal([row], [row], 3)[0].words[3] for _ in range(2)]
    for call in words[0]:
        bits = call.reshape(-1).view(torch.uint8)
        assert 100 < bits.double().mean() < 155 and len(bits.unique()) == 256
        assert call.reshape(-1).unique().numel() > 0.99 * call.numel()
    assert (words[0] == words[1]).double().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 5000, 20000])
def test_a_sum_changes_with_any_bit_whoever_takes_it(dtype: torch.dtype, count: int) -> None:
    each = torch.rand(count + 1, generator=torch.Generator().manual_seed(count)).to(dtype)[1:]
    other = each.clone()
    assert totals([each, other]) == [total(each), total(other)] == [total(each)] * 2
    assert totals([each, torch.zeros(5)]) == [total(each), 0]
    if count:
        other[-1] = other[-1] == 0
        assert total(other) != total(each)


@needs_sandbox
def test_a_driver_without_a_solution_answers_as_one_with_it(doubled: Task) -> None:
    """That is what the judge learns from how long everything but the calls takes."""
    inputs = [[torch.randn(6, 10)] for _ in range(3)]
    with template(LIMITS, devices=False, unsandboxed=False).spawn() as solution:
        caller = Caller(doubled, form_of(doubled), solution, LIMITS, "cpu")
        caller.prepare(doubled.tolerance)
        sealed, seen = caller.seal(inputs[:2], inputs[1:], 3)
        caller.load(inputs, sealed)
        assert caller.go([0, 1], sealed).sums == ((0,), (0,))
        with pytest.raises(Fault, match="wrote to its inputs"):
            caller.fetch(0, inputs[0], (0,))
        assert not caller.fetch(0, seen[0], (0,))[doubled.graph.results[0].name].any()
        caller.build("import torch\n" + DOUBLED.replace("nn.Module", "torch.nn.Module"))
        caller.set_state({}, {})
        caller.load(inputs, sealed)
        sums = caller.go([0, 1], sealed).sums
        for slot in range(2):
            (output,) = caller.fetch(slot, seen[slot], sums[slot]).values()
            assert torch.allclose(output, 2.0 * torch.exp(seen[slot][0]))


@needs_sandbox
def test_calls_that_return_more_at_times_are_told_of(doubled: Task) -> None:
    text = """
    class ModelNew(nn.Module):
        calls = 0
        def forward(self, x):
            self.calls += 1
            return 2.0 * torch.exp(x) if self.calls % 2 else [2.0 * torch.exp(x)] * 2
    """
    assert reason(judged(doubled, text)) in ("run: wrong_output", "run: too_many_outputs")


class _Silent:
    """Stands where a solution is spoken to, for tests that only look at times."""


BOUND = Bound(1 << 20, 1 << 20, 0, "H100", 6e-7, "memory")


def clocked(
    doubled: Task, none: float, one: float, some: float, all_: float, overhead: Overhead | None = None
) -> Timing | Failure:
    series = Series(doubled, _Silent(), lambda _: [], lambda *_: None, overhead or Overhead(), 0)
    series.walls = {0: [none] * 5, 1: [one] * 5, 4: [some] * 5, 8: [all_] * 5}
    return series._timing(4, BOUND, gpu("H100"), "CPU")


def test_the_time_is_the_slope(doubled: Task) -> None:
    timing = clocked(doubled, 0.001, 0.011, 0.041, 0.081)
    assert isinstance(timing, Timing) and timing.median == pytest.approx(0.010)


def test_what_the_driver_took_without_a_solution_is_not_the_solutions(doubled: Task) -> None:
    """10 ms are asked for each call, of which 4 ms are the driver's; but never most of it, nor below a lone call's 16th."""
    walls = (0.001, 0.012, 0.042, 0.082)
    timing = clocked(doubled, *walls, Overhead(each=0.004, first=0.001))
    assert isinstance(timing, Timing) and timing.median == pytest.approx(0.006)
    assert dict(timing.clocks_of) == pytest.approx({"wall": 0.010, "driver": 0.004, "question": 0.001})
    most = clocked(doubled, *walls, Overhead(each=0.0099, first=0.001))
    assert isinstance(most, Timing) and most.median == pytest.approx(0.004)
    alone = clocked(doubled, 0.0001, 0.0009, 0.00095, 0.001)
    assert isinstance(alone, Timing) and alone.median >= 0.0008 / 16
    least = least_seconds(BOUND, gpu("H100"), 8)
    bound = clocked(doubled, 0.0, 1.5 * least, 6 * least, 12 * least, Overhead(each=1.2 * least))
    assert isinstance(bound, Timing) and bound.median == pytest.approx(least)


@pytest.mark.parametrize(
    ("walls", "why"),
    [
        ((0.001, 0.081, 0.081, 0.081), "batched_calls"),
        ((0.001, 0.002, 0.041, 0.042), "calls_too_cheap"),
        ((0.001, 0.001, 0.001, 0.001), "calls_too_cheap"),
        ((0.001, 0.001, 0.001, 0.001000001), "below_bound"),
    ],
)
def test_times_that_contradict_work_are_rejected(
    doubled: Task, walls: tuple[float, float, float, float], why: str
) -> None:
    failure = clocked(doubled, *walls)
    assert isinstance(failure, Failure) and (failure.stage, failure.reason) == (Stage.TIME, why)


def test_a_cache_may_beat_memory_but_nothing_beats_arithmetic() -> None:
    h100 = gpu("H100")
    small, large = (
        Bound(size, size, 0, "H100", 2 * size / h100.memory_bandwidth, "memory") for size in (1 << 16, 1 << 30)
    )
    assert least_seconds(small, h100, 8) == pytest.approx((1 << 17) / h100.l2_bandwidth)
    assert 0.9 * large.seconds < least_seconds(large, h100, 8) <= large.seconds
    assert least_seconds(Bound(8, 8, 10**12, "H100", 1e-3, "arithmetic"), h100, 8) == 1e-3


def test_library_calls_are_told_apart_from_own_work() -> None:
    profile = profile_of([("aten.addmm.default", 2), ("aten.addmm.out", 1), ("aten.view.default", 5)], ["a note"])
    assert dict(profile.metrics) == {"library calls": 3.0, "operators": 8.0}
    assert profile.bottleneck == "library calls" and "addmm" in profile.advice and "a note" in profile.advice
    assert "Nothing was noted" in profile_of([("aten.view.default", 1)], []).advice
