"""Memory of all kinds: widths, spaces and lifetimes; and wild accesses, found with the line that made them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.device.kit import clean, launch, run, spec
from warpsmith.device.arena import Arena, poison
from warpsmith.errors import SimulatorError
from warpsmith.records import DTYPE_BYTES, TensorSpec

HEADER = 'extern "C" __global__ void k'


NUMBERS = {
    "char": np.int8,
    "unsigned char": np.uint8,
    "short": np.int16,
    "unsigned short": np.uint16,
    "int": np.int32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
}
VECTORS = [
    (kind, width) for kind, dtype in NUMBERS.items() for width in (1, 2, 4) if np.dtype(dtype).itemsize * width <= 16
]


@pytest.mark.parametrize(("kind", "width"), VECTORS)
def test_loads_and_stores_of_every_width(kind, width):
    dtype = NUMBERS[kind]
    size = np.dtype(dtype).itemsize * width
    source = HEADER + "(float* x, float* out) { out[threadIdx.x] = x[threadIdx.x]; if (threadIdx.x == 3) x[3] = 5; }"
    execution = run(source, launch("k", 1, 8, ["x", "out"]), {"x": torch.zeros(8)}, [spec("out", 8)])
    assert execution.overwritten == ("x",)
    assert execution.outputs["out"].tolist() == [0.0] * 8


def test_what_nobody_writes_stays_poisoned():
    source = HEADER + "(float* out) { out[0] = 1; }"
    one, other = (
        run(source, launch("k", 1, 1, ["out"]), {}, [spec("out", 4)], fill=fill).outputs["out"] for fill in (1, 2)
    )
    assert one[0] == 1 and torch.isnan(one[1:]).all() and torch.isnan(other[1:]).all()
    assert one.view(torch.int32).tolist() != other.view(torch.int32).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": "missing"}, "no kernel named missing"),
        ({"block": (2048, 1, 1)}, "block of (2048, 1, 1)"),
        ({"block": (32, 64, 1)}, "block of (32, 64, 1)"),
        ({"grid": (1, 70000, 1)}, "grid of"),
        ({"shared": 300_000}, "shared memory"),
        ({"args": ("out",)}, "1 arguments"),
        ({"cooperative": True, "grid": (100_000, 1, 1)}, "100000 blocks"),
    ],
)
def test_launches_that_hardware_refuses(change, said):
    wrong = replace(launch("k", 1, 32, ["out", 1]), **change)
    execution = run(HEADER + "(float* out, int n) { out[0] = n; }", wrong, {}, [spec("out", 4)])
    assert [one.kind for one in execution.findings] == ["invalid_launch"]
    assert said in execution.findings[0].message


def test_clusters_are_refused_by_name():
    wrong = replace(launch("k", 2, 32, ["out"]), cluster=(2, 1, 1))
    with pytest.raises(SimulatorError, match="clusters"):
        run(HEADER + "(float* out) { out[0] = 1; }", wrong, {}, [spec("out", 4)])


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_poison_is_nan_where_the_dtype_has_one(dtype):
    arena = Arena({}, [TensorSpec("out", (100,), dtype)], [], 3)
    output = arena.output("out")
    assert output.shape == (100,) and str(output.dtype) == f"torch.{dtype}"
    if output.dtype.is_floating_point:
        assert torch.isnan(output).all()
    assert len(set(poison(dtype, 800, np.random.default_rng(1)).tolist())) > 20


def test_guards_notice_a_single_byte():
    arena = Arena({"x": torch.ones(3)}, [TensorSpec("out", (5,), "float32")], [], 3)
    assert arena.trampled() == () and arena.overwritten() == ()
    arena.data[arena.regions["out"].end] ^= 1
    assert arena.trampled() == ("out",)
    arena.data[arena.regions["x"].start] ^= 1
    assert arena.overwritten() == ("x",)
    assert math.isnan(float(arena.output("out")[0]))


def test_empty_and_scalar_tensors():
    source = HEADER + "(const float* x, float* out, float* none) { out[0] = x[0]; }"
    inputs = {"x": torch.tensor(3.0), "unused": torch.empty(0)}
    execution = run(source, launch("k", 1, 1, ["x", "out", "none"]), inputs, [spec("out", ()), spec("none", (0, 3))])
    outputs = clean(execution)
    assert outputs["out"].item() == 3.0 and outputs["none"].shape == (0, 3)
