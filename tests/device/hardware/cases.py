"""The inputs of the recorded operations, and the names of the kernels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("operations.cu")
RECORDED = Path(__file__).with_name("hopper.npz")
COUNT = 1024


def kernels() -> list[str]:
    """Return the kernels of `operations.cu`, in order."""
    return re.findall(r"^KERNEL\((\w+),", SOURCE.read_text(), re.MULTILINE)


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three float32 arrays: ordinary values, wide exponents, raw bits, special values against one another."""
    rng = np.random.default_rng(20261123)
    quarter = COUNT // 4
    special = np.array(
        [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, 0.5, 2.5, 65504.0, 65520.0],
        dtype=np.float32,
    )  # fmt: skip
    columns = []
    for number in range(3):
        ordinary = rng.standard_normal(quarter).astype(np.float32) * np.float32(3)
        wide = (rng.standard_normal(quarter) * 2.0 ** rng.integers(-120, 120, quarter)).astype(np.float32)
        raw = rng.integers(0, 2**32, quarter, dtype=np.uint32).view(np.float32)
        mixed = np.roll(np.tile(special, quarter // special.size), number * (quarter // 16 + 1))
        if number == 1:
            mixed = np.repeat(special, quarter // special.size)
        columns.append(np.concatenate([ordinary, wide, raw, mixed]).astype(np.float32))
    return columns[0], columns[1], columns[2]
