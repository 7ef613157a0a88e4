"""Does a solution with host code run on the GPU inside the sandbox, and is it judged rightly there?"""

from __future__ import annotations

import secrets
import sys

from warpsmith.device.cuda.gpus import find_gpu
from warpsmith.device.cuda.lock import gpu_lock
from warpsmith.judge.foreign import judge_foreign
from warpsmith.task import load_task

TASK = "examples/gelu.py"
SOLUTION = """
import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def forward(self, x):
        {body}
"""
CASES = {
    "honest": ("return torch.nn.functional.gelu(x)", True),
    "on the GPU": ("assert x.is_cuda; return 0.5 * x * (1.0 + torch.erf(x * 0.7071067811865476))", True),
    "approximate": ("return x * torch.sigmoid(1.702 * x)", False),
    "nothing computed": ("return torch.empty_like(x)", False),
    "another stream": (
        "s = torch.cuda.Stream()\n        with torch.cuda.stream(s):\n            y = torch.nn.functional.gelu(x)\n"
        "        torch.cuda.current_stream().wait_stream(s)\n        return y",
        True,
    ),
}


def main() -> int:
    """Print a row for each case; return how many came out wrong."""
    present = find_gpu("gpu")
    if present is None:
        print("There is no NVIDIA GPU here.")
        return 0
    task, where, wrong = load_task(TASK), f"cuda:{present.ordinal}", 0
    for name, (body, right) in CASES.items():
        with gpu_lock(present.uuid):
            text = SOLUTION.format(body=body)
            verdict = judge_foreign(task, text, device=where, seed=secrets.randbits(31), gpu=present.spec)
        wrong += verdict.passed != right
        said = "passed" if verdict.failure is None else f"{verdict.failure.reason}: {verdict.failure.message[:160]}"
        clocks = dict(verdict.timing.clocks_of) if verdict.timing else {}
        parts = ", ".join(f"{each} {seconds * 1e6:.1f}" for each, seconds in clocks.items())
        time = f"{verdict.timing.median * 1e6:.1f} µs ({parts})" if verdict.timing else ""
        print(f"{'' if verdict.passed == right else 'WRONG '}{name:18} {said} {time}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
