"""Library calls in the simulator: they compute what PyTorch computes, on the arena and under its checks."""

from __future__ import annotations

import pytest
import torch

from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.device.simulator.estimate import FIRST_LAUNCH, NEXT_LAUNCH, library_seconds
from warpsmith.program import bind, parse_plan
from warpsmith.records import BoundPlan, Build, Execution, TensorSpec, Tolerance

H100 = gpu("H100")
EMPTY = Build("empty", "sm_90", True, ".version 8.0\n.target sm_90\n.address_size 64\n", b"", (), (), 0.0)
"""Device code without kernels: all that a plan of calls alone needs."""


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def bound(text: str, inputs: dict[str, torch.Tensor], out: torch.Tensor, policy: Tolerance | None = None) -> BoundPlan:
    tensors = {name: spec(name, value) for name, value in (*inputs.items(), ("out", out))}
    return bind(parse_plan(text), tensors, {}, H100, policy)


def run(
    text: str, inputs: dict[str, torch.Tensor], out: torch.Tensor, *, sanitize: bool = True, budget: int | None = None
) -> Execution:
    plan = bound(text, inputs, out)
    return Simulator(H100).run(EMPTY, plan, inputs, [spec("out", out)], fill=3, sanitize=sanitize, budget=budget)


def call(op: str, args: str, out: str = '"out"', options: str = "") -> str:
    return f'[[call]]\nop = "{op}"\nargs = [{args}]\nout = {out}\n' + (
        f"options = {{ {options} }}\n" if options else ""
    )


def assert_is(text: str, inputs: dict[str, torch.Tensor], due: torch.Tensor) -> None:
    """The call gives what is due and leaves everything else alone."""
    execution = run(text, inputs, due)
    assert execution.findings == () and execution.overwritten == () and execution.trampled == ()
    torch.testing.assert_close(execution.outputs["out"], due)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_matrix_products(dtype: torch.dtype) -> None:
    a, b, bias = normal(5, 7, dtype=dtype), normal(7, 3, dtype=dtype), normal(3, dtype=dtype)
    assert_is(call("aten.mm", '"a", "b"'), {"a": a, "b": b}, a @ b)
    assert_is(call("aten.addmm", '"c", "a", "b"'), {"a": a, "b": b, "c": bias}, torch.addmm(bias, a, b))
    a, b = normal(2, 5, 7, dtype=dtype), normal(2, 7, 3, dtype=dtype)
    assert_is(call("aten.bmm", '"a", "b"'), {"a": a, "b": b}, a @ b)
    assert_is(call("aten.baddbmm", '"c", "a", "b"'), {"a": a, "b": b, "c": bias}, torch.baddbmm(bias, a, b))


def test_views_transpose_slice_and_repeat() -> None:
    x, weight = normal(6, 8), normal(4, 5)
    text = call(
        "aten.mm",
        '{ tensor = "x", shape = [3, 5], strides = ["2 * x.shape[1]", 1], offset = 2 }, '
        '{ tensor = "w", shape = ["w.shape[1]", "w.shape[0]"], strides = [1, "w.shape[1]"] }',
    )
    assert_is(text, {"x": x, "w": weight}, x[::2, 2:7] @ weight.T)
    repeated = '{ tensor = "b", shape = [2, 5, 3], strides = [0, 3, 1] }'
    batch, one = normal(2, 4, 5), normal(5, 3)
    assert_is(call("aten.bmm", f'"a", {repeated}'), {"a": batch, "b": one}, batch @ one)


def test_a_call_writes_its_view_and_nothing_beside_it() -> None:
    """Two calls fill the halves of an output whose rows they share."""
    a, b = normal(4, 5), normal(5, 3)
    halves = [f'{{ tensor = "out", shape = [4, 3], strides = [6, 1], offset = {start} }}' for start in (0, 3)]
    text = call("aten.mm", '"a", "b"', halves[0]) + call("aten.mm", '"a", "b"', halves[1])
    assert_is(text, {"a": a, "b": b}, torch.cat([a @ b, a @ b], 1))
    half = run(call("aten.mm", '"a", "b"', halves[1]), {"a": a, "b": b}, torch.empty(4, 6)).outputs["out"]
    assert half[:, :3].isnan().all() and torch.equal(half[:, 3:], a @ b)


@pytest.mark.parametrize(
    ("image", "weight", "options", "arguments"),
    [
        ((2, 6, 9), (4, 6, 3), "stride = 2, padding = 1", ((2,), (1,), (1,), False, (0,), 1)),
        ((2, 6, 9, 8), (4, 3, 3, 2), "stride = [2, 1], groups = 2", ((2, 1), (0, 0), (1, 1), False, (0, 0), 2)),
        ((1, 2, 5, 6, 7), (3, 2, 2, 2, 2), "dilation = 2", ((1,) * 3, (0,) * 3, (2,) * 3, False, (0,) * 3, 1)),
        ((2, 6, 4, 5), (6, 2, 3, 3), "transposed = 1, stride = 2, output_padding = 1, groups = 2",
         ((2, 2), (0, 0), (1, 1), True, (1, 1), 2)),
    ],
)  # fmt: skip
def test_convolutions(image: tuple[int, ...], weight: tuple[int, ...], options: str, arguments: tuple) -> None:  # type: ignore[type-arg]
    x, w = normal(*image), normal(*weight)
    channels = weight[1] * arguments[5] if arguments[3] else weight[0]
    bias = normal(channels)
    due = torch.ops.aten.convolution(x, w, bias, *arguments)
    text = call("aten.convolution", '"x", "w", "b"', options=options)
    assert_is(text, {"x": x, "w": w, "b": bias}, due)
    plain = torch.ops.aten.convolution(x, w, None, *arguments)
    assert_is(call("aten.convolution", '"x", "w"', options=options), {"x": x, "w": w}, plain)


def test_empty_tensors_are_no_special_case() -> None:
    assert_is(call("aten.mm", '"a", "b"'), {"a": normal(0, 4), "b": normal(4, 3)}, torch.empty(0, 3))
    assert_is(call("aten.mm", '"a", "b"'), {"a": torch.empty(2, 0), "b": torch.empty(0, 3)}, torch.zeros(2, 3))


def test_reading_what_nobody_wrote_is_found_and_shows() -> None:
    text = '[buffers.kept]\nshape = [4, 4]\ndtype = "float32"\n\n' + call("aten.mm", '"x", "kept"')
    x = normal(4, 4)
    found = run(text, {"x": x}, x).findings
    assert [finding.kind for finding in found] == ["uninitialised"] and "kept" in found[0].message
    assert run(text, {"x": x}, x, sanitize=False).outputs["out"].isnan().all()
    first = call("aten.mm", '"x", "x"', '"kept"')
    assert_is(text.replace("[[call]]", f"{first}\n[[call]]", 1), {"x": x}, x @ (x @ x))


def test_an_input_that_a_call_overwrites_is_named() -> None:
    a, b = normal(4, 4), normal(4, 4)
    execution = run(call("aten.mm", '"a", "b"', '"c"'), {"a": a, "b": b, "c": normal(4, 4)}, torch.empty(1))
    assert execution.overwritten == ("c",)


def test_endless_products_of_repeated_elements_meet_the_budget() -> None:
    """Strides of zero make a small tensor as long as one likes."""
    row = '{ tensor = "x", shape = [1, 1000000000000], strides = [0, 0] }'
    column = '{ tensor = "x", shape = [1000000000000, 1], strides = [0, 0] }'
    x = normal(1)
    execution = run(call("aten.mm", f"{row}, {column}"), {"x": x}, torch.empty(1, 1), sanitize=False, budget=10**6)
    assert [finding.kind for finding in execution.findings] == ["budget"]


def test_time_grows_with_work_and_shrinks_with_the_precision_that_the_task_allows() -> None:
    def seconds(size: int, policy: Tolerance, dtype: torch.dtype = torch.float32) -> float:
        x = torch.empty(size, size, dtype=dtype, device="meta")
        return library_seconds(bound(call("aten.mm", '"a", "b"'), {"a": x, "b": x}, x, policy), H100)

    strict, loose = Tolerance(), Tolerance(matmul_tf32=True)
    assert seconds(8192, strict) > 2 * 8192**3 / H100.fp32_flops
    assert seconds(8192, strict) > 5 * seconds(8192, loose) > 5 * seconds(8192, strict, torch.float16)
    small = seconds(1, strict)
    assert FIRST_LAUNCH < small < FIRST_LAUNCH + NEXT_LAUNCH
    assert seconds(64, strict) - small > 50 * 2 * 64**3 / H100.fp32_flops, "one tile keeps one multiprocessor busy"
    memory = 3 * 4 * 8192**2 / H100.memory_bandwidth
    assert seconds(8192, loose) > memory


def test_the_policy_of_the_task_decides_on_tf32_for_each_kind_of_operator() -> None:
    x = torch.empty(1, 1, 4, 4, device="meta")
    convolution = call("aten.convolution", '"x", "x"', options="padding = 0")
    due = torch.empty(1, 1, 1, 1, device="meta")
    square = torch.empty(4, 4, device="meta")
    for products, convolutions in ((True, False), (False, True)):
        policy = Tolerance(matmul_tf32=products, conv_tf32=convolutions)
        assert bound(convolution, {"x": x}, due, policy).calls[0].tf32 == convolutions
        assert bound(call("aten.mm", '"x", "x"'), {"x": square}, square, policy).calls[0].tf32 == products
