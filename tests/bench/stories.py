"""Rows and runs to test with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from warpsmith.bench import BaselineTime, Bench, Machine, Row, RunRecord, Session
from warpsmith.records import Comparison

MACHINE = Machine((), "none", "2.13.0", "none", "3.11.9", "0.1.0")
GPU_MACHINE = Machine(("NVIDIA H100",), "580.1", "2.11.0", "13.0", "3.12.1", "0.1.0")
FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
TASK = "import torch\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        return x + 1\n\ndef get_inputs():\n    return [torch.randn(8)]\n"


def compared(baseline: str, ratio: float, width: float = 0.01, spread: float = 1.0) -> Comparison:
    """A comparison whose interval reaches `width` to either side, as a share."""
    return Comparison(baseline, ratio, (ratio * (1 - width), ratio * (1 + width)), spread, 20)


def passed(name: str, level: int | None, eager: float, best: float | None = None, **changes: object) -> Row:
    """A measured row: `eager` and `best` are the ratios against eager and against the fastest baseline."""
    seconds = 1e-3
    best = eager if best is None else best
    row = Row(
        name=name,
        source_hash=f"hash of {name}",
        fingerprint="",
        status="passed",
        device="H100",
        spent=60.0,
        finished="2026-01-01T00:00:00+00:00",
        level=level,
        kind="pure",
        seconds=seconds,
        interval=(seconds * 0.99, seconds * 1.01),
        timing="measured",
        bound=seconds / 2,
        baselines=(BaselineTime("eager", seconds * eager), BaselineTime("compile graph", seconds * best)),
        comparisons=(compared("eager", eager), compared("compile graph", best)),
        judged=10,
        first_pass=5.0,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def failed(name: str, level: int | None, status: str = "wrong", message: str = "nothing passed") -> Row:
    """A row of a task that brought nothing."""
    return Row(
        name, f"hash of {name}", "", status, "H100", 30.0, "2026-01-01T00:00:00+00:00", level, message=message  # type: ignore[arg-type]
    )  # fmt: skip


def estimated(name: str, level: int | None = 1) -> Row:
    """A row as the simulator brings it."""
    return passed(name, level, 1.0, timing="estimated", baselines=(), comparisons=())


def record(names: Sequence[str], **changes: object) -> RunRecord:
    """A record of a run of tasks with these names."""
    made = RunRecord(
        suite="/suites/kernelbench",
        regime="v0.1",
        device="H100",
        settings=(("seed", "0"), ("budget", "60.0")),
        machine=GPU_MACHINE,
        tasks=tuple(names),
        sessions=(Session(("warpsmith", "bench", "kernelbench"), "2026-01-01T00:00:00+00:00"),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def bench(rows: Sequence[Row], **changes: object) -> Bench:
    """A run with these rows."""
    made = record([row.name for row in rows], **changes)
    return Bench(made, tuple(replace(row, fingerprint=made.fingerprint) for row in rows))


ROWS = (
    passed("level1/1_fast", 1, 2.0, 1.6),
    passed("level1/2_even", 1, 1.005, 0.999),
    passed("level1/3_slow", 1, 0.5, 0.4),
    failed("level1/4_wrong", 1),
    passed("level2/1_hybrid", 2, 4.0, 1.2, kind="hybrid", library_share=0.4),
    failed("level2/2_crashed", 2, "crashed", "was ended by SIGSEGV"),
)
