"""Two processes on one GPU take turns, so that neither disturbs the other's clock, and both compute what is right."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from filelock import Timeout

from tests.gpu.bench import copied, needs_gpu
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.device.cuda.lock import gpu_lock

pytestmark = needs_gpu

ROUNDS = 5
OTHER = f"""
import sys, time, torch
from tests.gpu.bench import copied, shared_device
device = shared_device()
x = torch.randn(100_000)
copied(device, x)
print("ready", flush=True)
sys.stdin.readline()
for _ in range({ROUNDS}):
    with device.exclusive():
        start = time.monotonic()
        right = torch.equal(copied(device, x).outputs["out"].cpu(), x)
        time.sleep(0.02)
        print(start, time.monotonic(), int(right), flush=True)
"""
HOLDER = """
import sys
from warpsmith.device.cuda.lock import gpu_lock
with gpu_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""
ROOT = Path(__file__).parents[2]


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_who_holds_the_gpu_keeps_others_out(device: CudaDevice) -> None:
    with start(HOLDER, device.present.uuid) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Timeout):
            gpu_lock(device.present.uuid).acquire(timeout=0.1)
        other.stdin.write("\n")
        other.stdin.flush()
        with device.exclusive():
            pass
    assert other.returncode == 0


def test_two_processes_take_turns(device: CudaDevice) -> None:
    x = torch.randn(100_000)
    spans: list[tuple[float, float]] = []
    with start(OTHER) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("\n")
        other.stdin.flush()
        for _ in range(ROUNDS):
            with device.exclusive():
                begin = time.monotonic()
                assert torch.equal(copied(device, x).outputs["out"].cpu(), x)
                time.sleep(0.02)
                spans.append((begin, time.monotonic()))
        told = [line.split() for line in other.stdout]
    assert other.returncode == 0 and len(told) == ROUNDS
    assert all(right == "1" for _, _, right in told), "one process changes what the other computes"
    spans += [(float(begin), float(end)) for begin, end, _ in told]
    spans.sort()
    assert all(first[1] <= second[0] for first, second in pairwise(spans)), "both held the GPU at once"
