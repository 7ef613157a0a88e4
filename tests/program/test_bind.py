"""Binding: plans evaluated for shapes and a device, and launches that no device could make refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpsmith.device.catalog import GPUS
from warpsmith.errors import ExpressionError, ProgramError
from warpsmith.program import bind, parse_plan
from warpsmith.program.bind import device_properties
from warpsmith.program.validate import DEVICE_PROPERTIES
from warpsmith.records import BoundCall, BoundLaunch, BoundPlan, BoundView, Launch, Plan, TensorSpec

Shape = tuple[int, int, int]
H200, A100 = GPUS["H200"], GPUS["A100"]
TENSORS = {"x": TensorSpec("x", (48, 1000), "float32"), "out": TensorSpec("out", (48, 1000), "float32")}
FULL = """
[symbols]
tiles = "rows * ceil_div(cols, BLOCK)"
rows = "x.shape[0]"
cols = "x.shape[-1]"

[tunables]
BLOCK = [256, 128]

[buffers.partial]
shape = ["rows", "ceil_div(cols, BLOCK)"]
dtype = "float16"

[[launch]]
kernel = "first"
grid = ["tiles", "2"]
block = ["BLOCK"]
shared = "BLOCK * 4"
args = ["x", "partial", "rows", "cols - 1", "partial.shape[1]", "sm_count"]

[[launch]]
kernel = "second"
grid = ["rows", 2, 4]
block = [32, 4, 2]
cluster = [2, 1, 4]
args = ["partial", "out"]
"""


def test_everything_is_evaluated() -> None:
    bound = bind(parse_plan(FULL), TENSORS, {"BLOCK": 128}, H200)
    assert bound == BoundPlan(
        buffers=(TensorSpec("partial", (48, 8), "float16"),),
        launches=(
            BoundLaunch("first", (384, 2, 1), (128, 1, 1), 512, ("x", "partial", 48, 999, 8, 132)),
            BoundLaunch("second", (48, 2, 4), (32, 4, 2), 0, ("partial", "out"), (2, 1, 4)),
        ),
    )


def test_tunables_and_device_change_the_result() -> None:
    plan = parse_plan(FULL.replace("cluster = [2, 1, 4]\n", ""))
    first = bind(plan, TENSORS, {"BLOCK": 256}, A100).launches[0]
    assert first.grid == (192, 2, 1)
    assert first.args[-1] == 108


def test_every_device_property_has_a_value_on_every_gpu() -> None:
    for spec in GPUS.values():
        properties = device_properties(spec)
        assert set(properties) == set(DEVICE_PROPERTIES)
        assert all(value > 0 for value in properties.values())


def one_launch(**changes: object) -> Plan:
    fields: dict[str, object] = {"kernel": "k", "grid": ("1",), "block": ("32",), "args": ("x", "out")}
    return Plan((), (), (), (Launch(**(fields | changes)),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": ("x.shape[0] - 48",)}, "launch 1 (k): grid x is 0"),
        ({"grid": ("1", "-1")}, "grid y is -1"),
        ({"grid": ("2147483648",)}, "must lie between 1 and 2147483647"),
        ({"grid": ("1", "65536")}, "grid y is 65536 (65536); it must lie between 1 and 65535"),
        ({"grid": ("1", "1", "65536")}, "grid z is 65536"),
        ({"block": ("0",)}, "block x is 0"),
        ({"block": ("1025",)}, "block x is 1025"),
        ({"block": ("1", "1", "65")}, "block z is 65 (65); it must lie between 1 and 64"),
        ({"block": ("64", "32")}, "2048 threads; 1024 is the limit"),
        ({"shared": "shared_per_block + 1"}, "232449 bytes of shared memory; H200 allows 0 to 232448"),
        ({"shared": "-1"}, "-1 bytes of shared memory"),
        ({"cluster": ("16",), "grid": ("16",)}, "cluster x is 16"),
        ({"cluster": ("4", "4"), "grid": ("4", "4")}, "more than 8 blocks"),
        ({"cluster": ("2",), "grid": ("3",)}, "is not a multiple of cluster"),
        ({"cooperative": True, "grid": ("132 * 32 + 1",)}, "at most 4224 are resident on H200"),
        ({"cooperative": True, "grid": ("132 * 2 + 1",), "block": ("1000",)}, "at most 264 are resident on H200"),
        ({"args": ("x", "output")}, "args[1]: unknown name 'output'"),
        ({"args": ("x * 2",)}, "'x' is a tensor; write x.shape[0]"),
        ({"grid": ("x.shape[0] // (x.shape[0] - 48)",)}, "grid[0]: division by zero"),
        ({"grid": ("9223372036854775807 * 2",)}, "does not fit 64 bits"),
    ],
)
def test_impossible_launches_are_refused_with_the_reason(changes: Mapping[str, object], message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        bind(one_launch(**changes), TENSORS, {}, H200)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": ("2147483647", "65535", "65535")},
        {"block": ("32", "8", "4")},
        {"block": ("1", "1", "64")},
        {"shared": "shared_per_block"},
        {"cluster": ("2", "4"), "grid": ("4", "8")},
        {"cooperative": True, "grid": ("sm_count * 2",), "block": ("1024",)},
    ],
)
def test_launches_at_the_limit_are_accepted(changes: Mapping[str, object]) -> None:
    bind(one_launch(**changes), TENSORS, {}, H200)


def test_clusters_need_hopper() -> None:
    with pytest.raises(ProgramError, match=r"compute capability 9\.0; A100 has less"):
        bind(one_launch(cluster=("2",), grid=("2",)), TENSORS, {}, A100)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('rows = "x.shape[0]"', 'rows = "tiles"', "defined by itself: tiles → rows → tiles"),
        ('rows = "x.shape[0]"', 'rows = "rows + 1"', "defined by itself: rows → rows"),
        ('rows = "x.shape[0]"', 'rows = "y.shape[0]"', "symbols.rows: unknown tensor 'y'"),
        ('rows = "x.shape[0]"', 'rows = "partial.shape[0]"', "symbols.rows: unknown tensor 'partial'"),
        ('["rows", "ceil_div', '["-rows", "ceil_div', "buffers.partial: the shape [-48, 4] has a negative extent"),
        ('["rows", "ceil_div', '["100000000000", "ceil_div', "but H200 has 141000000000 bytes of memory"),
    ],
)
def test_symbols_and_buffers_that_make_no_sense_are_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        bind(parse_plan(FULL.replace(old, new)), TENSORS, {"BLOCK": 256}, H200)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["rows", "BLOCK", "partial", "sm_count"])
def test_a_tensor_may_not_share_its_name_with_anything_of_the_plan(name: str) -> None:
    with pytest.raises(ProgramError, match=f"'{name}' is the name of a tensor of the task and of a"):
        bind(parse_plan(FULL), {**TENSORS, name: TensorSpec(name, (1,), "float32")}, {"BLOCK": 256}, H200)


@pytest.mark.parametrize("tunables", [{}, {"BLOCK": 64}, {"BLOCK": 256, "VEC": 4}])
def test_only_declared_values_of_tunables_are_taken(tunables: dict[str, int]) -> None:
    with pytest.raises(ProgramError, match="tunable"):
        bind(parse_plan(FULL), TENSORS, tunables, H200)


def test_plans_built_by_hand_are_checked_too() -> None:
    with pytest.raises(ExpressionError, match="unexpected character"):
        bind(one_launch(grid=("1; 2",)), TENSORS, {}, H200)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_whatever_the_shape_the_grid_covers_it_or_is_refused(rows: int, cols: int) -> None:
    tensors = {"x": TensorSpec("x", (rows, cols), "float32"), "out": TensorSpec("out", (rows, cols), "float32")}
    plan = one_launch(grid=("ceil_div(x.shape[1], 32)", "x.shape[0]"))
    try:
        bound = bind(plan, tensors, {}, H200)
    except ProgramError:
        assert rows == 0 or cols == 0
    else:
        grid_x, grid_y, _ = bound.launches[0].grid
        assert grid_x * 32 >= cols > (grid_x - 1) * 32
        assert grid_y == rows


# ------------------------------------------------------------------------------------------------------- library calls

MATRICES = {
    "a": TensorSpec("a", (4, 6), "float32"),
    "b": TensorSpec("b", (6, 3), "float32"),
    "out": TensorSpec("out", (4, 3), "float32"),
    "image": TensorSpec("image", (2, 4, 9, 9), "float32"),
    "filter": TensorSpec("filter", (8, 2, 3, 3), "float32"),
    "half": TensorSpec("half", (6, 3), "float16"),
    "count": TensorSpec("count", (6, 3), "int32"),
}
PRODUCT = '[[call]]\nop = "aten.mm"\nargs = ["a", "b"]\nout = "out"\n'
WINDOWS = '[[call]]\nop = "aten.convolution"\nargs = ["image", "filter"]\nout = "result"\noptions = { groups = 2 }\n'


def calls_of(text: str, shape: str = "[2, 8, 7, 7]") -> tuple[BoundCall, ...]:
    buffer = f'[buffers.result]\nshape = {shape}\ndtype = "float32"\n'
    return bind(parse_plan(buffer + text), MATRICES, {}, H200).calls


def test_a_call_is_bound_with_shapes_strides_and_every_option() -> None:
    (times,) = calls_of(PRODUCT.replace('"a", ', '{ tensor = "image", shape = ["a.shape[0]", 6], offset = "1 + 1" }, '))
    assert times.args == (BoundView("image", (4, 6), (6, 1), 2), BoundView("b", (6, 3), (3, 1), 0))
    assert times.dtype == "float32" and times.options == ()
    (convolution,) = calls_of(WINDOWS)
    assert dict(convolution.options) == {
        "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "transposed": (0,), "output_padding": (0, 0), "groups": (2,)
    }  # fmt: skip
    assert convolution.tf32 and not times.tf32


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"b"', '"c"', "args[1]: unknown tensor 'c'"),
        ('"b"', '"a"', "cannot multiply [4, 6] by [4, 6]"),
        ('"b"', '"image"', "takes matrices of 2 dimensions, not [4, 6] and [2, 4, 9, 9]"),
        ('"b"', '"half"', "the tensors of a call are of one dtype, but a is float32, half is float16"),
        ('"a", "b"', '"count", "count"', "the tensors of a call are of one dtype, but count is int32"),
        ('"b"', '{ tensor = "b", shape = [6, 4] }', "args[1]: the view ends at element 23 of b, which has 18 elements"),
        ('"b"', '{ tensor = "b", shape = [6, 3], offset = 1 }', "ends at element 18 of b"),
        ('"b"', '{ tensor = "b", shape = [6, 3], strides = [3, -1] }', "strides is [3, -1]; nothing may be negative"),
        ('"b"', '{ tensor = "b", shape = [6, "rows"] }', "args[1]: shape[1]: unknown name 'rows'"),
        ('out = "out"', 'out = "b"', "reads b and writes it"),
        ('out = "out"', 'out = "a"', "reads a and writes it"),
        ('out = "out"', 'out = { tensor = "out", shape = [4, 3], strides = [1, 1] }', "lie in one place of out"),
        ('out = "out"', 'out = { tensor = "out", shape = [4, 3], strides = [0, 1] }', "lie in one place of out"),
        ('out = "out"', 'out = { tensor = "out", shape = [3, 4] }', "out has shape [3, 4], but the result is [4, 3]"),
        ("aten.mm", "aten.bmm", "takes matrices of 3 dimensions"),
        ('"aten.mm"\nargs = [', '"aten.addmm"\nargs = ["b", ', "cannot add [6, 3] to a product of shape [4, 3]"),
    ],
)
def test_calls_that_do_not_fit_are_refused(old: str, new: str, message: str) -> None:
    """Nothing can be read or written through a view that reaches out of its tensor, or is its own input."""
    assert old in PRODUCT
    with pytest.raises(ProgramError) as caught:
        calls_of(PRODUCT.replace(old, new, 1))
    assert str(caught.value).startswith("call 1 (aten.") and message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("groups = 1", "weights [8, 2, 3, 3] in 1 groups do not fit images [2, 4, 9, 9]"),
        ("groups = 0", "in 0 groups"),
        ("groups = 2, stride = 0", "stride is [0]; it needs 1 or 2 numbers, each at least 1"),
        ("groups = 2, padding = [1, 1, 1]", "padding is [1, 1, 1]; it needs 1 or 2 numbers"),
        ("groups = 2, padding = -1", "padding is [-1]"),
        ("groups = 2, dilation = 5", "images [2, 4, 9, 9] are too small for windows [3, 3]"),
        ("groups = [2, 2]", "groups is [2, 2]; it is one number"),
        ("transposed = 2", "transposed is 2; it is 0 or 1"),
        ("groups = 2, output_padding = 1", "output_padding goes with transposed = 1"),
        ("groups = 2, padding = 1", "out has shape [2, 8, 7, 7], but the result is [2, 8, 9, 9]"),
    ],
)
def test_options_of_a_convolution_that_do_not_fit_are_refused(options: str, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        calls_of(WINDOWS.replace("groups = 2", options))
    assert message in str(caught.value)


@given(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(0, 9)] * 3), st.integers(0, 5))
def test_a_view_is_let_through_exactly_if_it_stays_inside(shape: Shape, strides: Shape, offset: int) -> None:
    """All places that the view names, one by one, against the 18 elements that there are."""
    places = [offset + sum(i * s for i, s in zip(index, strides)) for index in product(*map(range, shape))]
    view = f'{{ tensor = "b", shape = {list(shape)}, strides = {list(strides)}, offset = {offset} }}'
    ones = f'{{ tensor = "ones", shape = {[shape[0], shape[2], shape[2]]} }}'
    text = '[buffers.ones]\nshape = [64]\ndtype = "float32"\n'
    text += f'[[call]]\nop = "aten.bmm"\nargs = [{view}, {ones}]\nout = "result"\n'
    if max(places) < 18:
        assert calls_of(text, str(list(shape)))[0].args[0].offset == offset
    else:
        with pytest.raises(ProgramError, match=f"the view ends at element {max(places)} of b"):
            calls_of(text, str(list(shape)))
