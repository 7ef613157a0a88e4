"""The simulator agrees with what an H100 and an H200 gave, bit by bit; approximate instructions to two units in the last place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.device.hardware import cases
from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.program import Builder
from warpsmith.records import BoundLaunch, BoundPlan, Build, Plan, Program, TensorSpec

# Hardware approximates these below the accuracy of their exact forms: absolute error for sines of large arguments and
# logarithms near 1, and tanh.approx has 11 good bits (PTX ISA, sin, cos, lg2, tanh).
_ABSOLUTE = {"approx_sin": 2**-20.9, "approx_cos": 2**-20.9, "approx_log": 2**-22, "approx_log2": 2**-22}
_RELATIVE = {"approx_tanh": 2**-10.9}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    builder = Builder(tmp_path_factory.mktemp("cache"))
    built = builder.build(Program(cases.SOURCE.read_text(), Plan((), (), (), ())), {}, "sm_90a")
    builder.close()
    assert built.ok, built.diagnostics
    return built


def _simulated(build: Build, kernel: str, *, magnitudes: bool = False) -> np.ndarray:
    launch = BoundLaunch(kernel, (cases.COUNT // 256, 1, 1), (256, 1, 1), 0, ("x", "y", "z", "out"))
    columns = [np.abs(c) if magnitudes else c.copy() for c in cases.inputs()]
    inputs = {n: torch.from_numpy(c) for n, c in zip("xyz", columns, strict=True)}
    output = TensorSpec("out", (cases.COUNT,), "int32")
    execution = Simulator(gpu("H200")).run(build, BoundPlan((), (launch,)), inputs, [output], fill=1, count=False)
    assert not execution.findings
    return execution.outputs["out"].numpy().view(np.uint32)


@pytest.mark.parametrize("kernel", cases.kernels())
def test_the_simulator_gives_what_the_gpu_gave(build: Build, kernel: str) -> None:
    got, recorded = _simulated(build, kernel), np.load(cases.RECORDED)
    if kernel not in recorded:
        pytest.skip("runs in the simulator; tools/gpu/record_reference.py has not recorded it yet")
    due = recorded[kernel]
    if kernel.startswith("tensor_"):
        same = _product_near(kernel, got, due, _simulated(build, kernel, magnitudes=True))
        assert same.all(), (kernel, np.flatnonzero(~same)[:3], got[~same][:3], due[~same][:3])
        return
    same = (got == due) | _both_nan(kernel, got, due)
    if kernel in _LIBRARY or kernel.startswith("approx_"):
        same |= _near(kernel, got, due)
    wrong = np.flatnonzero(~same)
    x, y, z = (column[wrong[:3]].view(np.uint32) for column in cases.inputs())
    assert not wrong.size, [
        f"x={a:08x} y={b:08x} z={c:08x}: simulator {g:08x}, GPU {d:08x}"
        for a, b, c, g, d in zip(x, y, z, got[wrong[:3]], due[wrong[:3]], strict=True)
    ] + [wrong.size]


# Library functions built on approximate instructions (ex2.approx, lg2.approx, rcp.approx): the same code runs in both,
# so they differ by what those instructions differ.
_LIBRARY = frozenset(["exp_", "tanh_", "erf_", "expm1_", "pow_", "cube_root", "half_exp"])
_HALVES = frozenset(n for n in cases.kernels() if n.startswith("half") or n in ("to_half", "to_half_rz"))
_BFLOATS = frozenset(n for n in cases.kernels() if n.startswith("bfloat") or n == "to_bfloat")
_INTEGERS = frozenset(
    [
        "less",
        "to_int_rz",
        "to_int_rn",
        "to_uint_rz",
        "to_long_rd",
        "half_less",
        "double_to_int",
        "leading_zeros",
        "reverse",
        "permute",
        "funnel_left",
        "funnel_right",
        "multiply_high",
        "multiply_high_signed",
        "wide_product",
        "quotient",
        "modulo",
        "unsigned_quotient",
        "long_quotient",
        "shift_left",
        "shift_right",
        "dot_bytes",
        "sum_of_differences",
        "average",
        "packed_max",
        "ballot",
        "match",
        "reduce_sum",
        "divergent",
        "double_fma",
        "double_divide",
        "double_sqrt",
        "double_exp",
    ]
)


def _floats(kernel: str, bits: np.ndarray) -> np.ndarray:
    if kernel in _HALVES:
        return bits.astype(np.uint16).view(np.float16).astype(np.float64)
    if kernel in _BFLOATS:
        return (bits << 16).view(np.float32).astype(np.float64)
    with np.errstate(invalid="ignore"):  # signalling NaNs become quiet ones
        return bits.view(np.float32).astype(np.float64)


def _both_nan(kernel: str, got: np.ndarray, due: np.ndarray) -> np.ndarray:
    """A NaN's payload is not specified; that it is one is."""
    if kernel in _INTEGERS:
        return np.zeros(got.shape, bool)
    return np.isnan(_floats(kernel, got)) & np.isnan(_floats(kernel, due))


def _near(kernel: str, got: np.ndarray, due: np.ndarray) -> np.ndarray:
    a, b = _floats(kernel, got), _floats(kernel, due)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(a - b)
        if kernel in _RELATIVE:
            return gap <= _RELATIVE[kernel] * np.abs(b)
        ulp = np.spacing(np.abs(b).astype(np.float16 if kernel in _HALVES else np.float32)).astype(np.float64)
        return (gap <= 2 * ulp) | (gap <= _ABSOLUTE.get(kernel, 0.0))


def _product_near(kernel: str, got: np.ndarray, due: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Whether results of `mma` are as near as its docstring says; `size` is the sum of the summands' magnitudes.

    Where that is no number, hardware may overflow on the way, or not.
    """
    half = kernel.endswith("_f16")
    a, b, scale = (one.view(np.float16 if half else np.float32).astype(np.float64) for one in (got, due, size))
    allowed = (int(kernel.split("_k")[1].split("_")[0]) + 2) * (2.0**-10 if half else 2.0**-23)
    with np.errstate(invalid="ignore"):
        near = (np.abs(a - b) <= allowed * scale + (2.0**-24 if half else 2.0**-149)) | ~np.isfinite(scale)
    return near.reshape(len(got), -1).all(axis=1)
