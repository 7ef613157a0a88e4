"""The cases of benchmarks/kernel_families.py: one module at one size for each kind of kernel.

Sizes are of the order of KernelBench's; the modules are our own. `tiny` sizes are for trying the script.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warpsmith.records import Task
from warpsmith.task import load_task

_TASK = """import torch
from torch import nn
from torch.nn import functional as F


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        {parts}

    def forward(self, {names}):
        return {expression}


def get_inputs():
    return [{inputs}]
"""


@dataclass(frozen=True)
class Case:
    """What is computed: an expression over inputs, whose shapes are given at full size and tiny.

    A shape may end with the name of a dtype. `parts` are statements that give the module parameters; there, and in the
    expression, `{0}` and so on stand for the `numbers`, at full size and tiny.
    """

    expression: str
    shapes: dict[str, tuple[object, ...]]
    tiny: dict[str, tuple[object, ...]]
    parts: str = "pass"
    numbers: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


def _product(expression: str, a: tuple[object, ...], b: tuple[object, ...]) -> Case:
    shrunk = [tuple(max(16, e // 128) if isinstance(e, int) else e for e in s) for s in (a, b)]
    return Case(expression, {"a": a, "b": b}, dict(zip("ab", shrunk, strict=True)))


def _module(
    maker: str, x: tuple[int, ...], tiny: tuple[int, ...], full: tuple[int, ...], small: tuple[int, ...]
) -> Case:
    return Case("self.layer(x)", {"x": x}, {"x": tiny}, f"self.layer = {maker}", (full, small))


_ATTENTION = "F.scaled_dot_product_attention(q, k, v"

CASES: dict[str, Case] = {
    "matmul": _product("a @ b", (4096, 4096), (4096, 4096)),
    "matmul, right transposed": _product("a @ b.T", (4096, 4096), (4096, 4096)),
    "matmul, left transposed": _product("a.T @ b", (4096, 4096), (4096, 4096)),
    "matmul, small": _product("a @ b", (1024, 1024), (1024, 1024)),
    "matmul, long sums": _product("a @ b", (256, 131072), (131072, 256)),
    "matmul, short sums": _product("a @ b", (16384, 32), (32, 16384)),
    "matmul, odd": _product("a @ b", (4101, 2949), (2949, 2961)),
    "matmul, batched": _product("a @ b", (64, 512, 1024), (64, 1024, 512)),
    "matmul, float16": _product("a @ b", (4096, 4096, "float16"), (4096, 4096, "float16")),
    "matrix and vector": _product("a @ b", (2048, 131072), (131072, 1)),
    "linear, gelu": Case(
        "F.gelu(self.layer(x))", {"x": (1024, 8192)}, {"x": (32, 64)}, "self.layer = nn.Linear({0}, {1})",
        ((8192, 8192), (64, 48)),
    ),
    "conv2d 3x3": _module(
        "nn.Conv2d({0}, {1}, 3, padding=1)", (16, 64, 128, 128), (1, 8, 8, 8), (64, 128), (8, 16)
    ),
    "conv2d 1x1": _module("nn.Conv2d({0}, {1}, 1)", (16, 64, 256, 256), (1, 8, 8, 8), (64, 128), (8, 16)),
    "conv2d of three channels": _module(
        "nn.Conv2d({0}, {1}, 11, stride=4, padding=2)", (128, 3, 224, 224), (1, 3, 24, 24), (3, 96), (3, 16)
    ),
    "conv3d": _module("nn.Conv3d({0}, {1}, 3)", (16, 8, 32, 64, 64), (1, 8, 5, 5, 5), (8, 64), (8, 16)),
    "conv2d, depthwise": _module(
        "nn.Conv2d({0}, {0}, 3, padding=1, groups={0})", (16, 64, 256, 256), (1, 8, 8, 8), (64,), (8,)
    ),
    "conv2d, transposed": _module(
        "nn.ConvTranspose2d({0}, {1}, 3, stride=2, padding=1)", (16, 64, 64, 64), (1, 8, 6, 6), (64, 64), (8, 16)
    ),
    "softmax": Case("torch.softmax(x, 1)", {"x": (4096, 16384)}, {"x": (8, 64)}),
    "softmax, long rows": Case("torch.softmax(x, 1)", {"x": (512, 393216)}, {"x": (8, 64)}),
    "instance norm": _module("nn.InstanceNorm2d({0})", (16, 64, 512, 512), (2, 4, 8, 8), (64,), (4,)),
    "L2 norm, odd": Case("x / torch.norm(x, p=2, dim=1, keepdim=True)", {"x": (4096, 65535)}, {"x": (8, 63)}),
    "layer norm": _module(
        "nn.LayerNorm(({0}, {1}, {1}))", (16, 64, 256, 256), (2, 4, 8, 8), (64, 256), (4, 8)
    ),
    "batch norm": _module("nn.BatchNorm2d({0})", (64, 64, 128, 128), (2, 4, 8, 8), (64,), (4,)),
    "sum over the middle": Case("x.sum(1)", {"x": (128, 1024, 1024)}, {"x": (2, 16, 32)}),
    "argmax": Case("x.argmax(1)", {"x": (128, 1024, 1024)}, {"x": (2, 16, 32)}),
    "max pool": Case("F.max_pool2d(x, 4)", {"x": (16, 64, 512, 512)}, {"x": (1, 4, 16, 16)}),
    "average pool": Case("F.avg_pool2d(x, 3, 1, 1)", {"x": (16, 64, 256, 256)}, {"x": (1, 4, 16, 16)}),
    "cumulative sum": Case("x.cumsum(1)", {"x": (4096, 32768)}, {"x": (4, 64)}),
    "cumulative sum, few rows": Case("x.cumsum(1)", {"x": (8, 4000000)}, {"x": (2, 64)}),
    "copy": Case("x.clone()", {"x": (4096, 32768)}, {"x": (8, 64)}),
    "gelu": Case("F.gelu(x)", {"x": (4096, 32768)}, {"x": (8, 64)}),
    "transposed": Case("(x.permute(0, 2, 1) * 2).contiguous()", {"x": (64, 1024, 2048)}, {"x": (2, 40, 33)}),
    "cross entropy": Case("F.cross_entropy(x, x.argmax(1))", {"x": (8192, 8192)}, {"x": (8, 64)}),
    "attention, causal": Case(
        f"{_ATTENTION}, is_causal=True)", dict.fromkeys("qkv", (16, 12, 1024, 64)), dict.fromkeys("qkv", (1, 2, 32, 16))
    ),
    "attention, float16": Case(
        f"{_ATTENTION})", dict.fromkeys("qkv", (16, 16, 1024, 128, "float16")),
        dict.fromkeys("qkv", (1, 2, 32, 16, "float16")),
    ),
}  # fmt: skip


def task_of(name: str, folder: Path, *, tiny: bool) -> Task:
    """Load a case as a task, by way of a file in `folder`."""
    case = CASES[name]
    shapes, numbers = (case.tiny, case.numbers[1]) if tiny else (case.shapes, case.numbers[0])
    text = _TASK.format(
        parts=case.parts.format(*numbers),
        names=", ".join(shapes),
        expression=case.expression.format(*numbers),
        inputs=", ".join(map(_drawn, shapes.values())),
    )
    path = folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.py"
    path.write_text(text)
    return load_task(path)


def _drawn(shape: tuple[object, ...]) -> str:
    *extents, last = shape
    if isinstance(last, str):
        return f"torch.randn({', '.join(map(str, extents))}, dtype=torch.{last})"
    return f"torch.randn({', '.join(map(str, shape))})"
