"""Calls of a solution in its sandbox: what goes in as bytes, what comes out as bytes, and what must hold for both."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from warpsmith.judge.foreign.form import Form
from warpsmith.judge.foreign.process import Fault, Solution
from warpsmith.judge.sandbox import Limits
from warpsmith.records import DTYPE_BYTES, Task, Tolerance
from warpsmith.task.evaluate import dtype_of

SEED = 42
_ROOM = 1 << 16
"""Bytes that an answer may be longer than what is due, so that a wrong shape can be named."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SETTLE = 0.003


@dataclass(frozen=True, eq=False)
class Patch:
    """What the inputs of a call turn into once the clock runs: for each input, places and values, both flat."""

    places: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def applied(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the inputs as the solution sees them."""
        return [
            tensor.reshape(-1).index_copy(0, places.to(tensor.device), values.to(tensor.device)).reshape(tensor.shape)
            for tensor, places, values in zip(inputs, self.places, self.values)
        ]


@dataclass(frozen=True, slots=True)
class Clocked:
    """Seconds of wall clock between question and answer; processor seconds inside of it and while all was quiet."""

    wall: float
    inside: float
    quiet: float
    sums: tuple[tuple[int, ...], ...]


class Caller:
    """Speaks with one solution about one task. Every method raises Fault where the solution fails."""

    def __init__(self, task: Task, form: Form, solution: Solution, limits: Limits, device: str) -> None:
        self.task = task
        self.form = form
        self.copy = False
        self.device = torch.device(device)
        self._solution = solution
        self._limits = limits
        self._names: Mapping[str, str] = {}
        self._due = sum(spec.nbytes for spec in form.order)

    def prepare(self, tolerance: Tolerance) -> None:
        """Set the driver up, before the solution is loaded."""
        message = {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "matmul_tf32": tolerance.matmul_tf32,
            "conv_tf32": tolerance.conv_tf32,
            "form": self.form.call,
            "written": self.form.written,
        }
        self._ask("prepare", message, seconds=self._limits.build_seconds)

    def build(self, source: str) -> list[list[object]]:
        """Load and construct the solution, or construct it anew; return what it says of its state."""
        message = {"source": source, "init": self.form.init, "seed": SEED}
        answer = self._ask("build", message, seconds=self._limits.build_seconds)[0]
        state = answer.get("state")
        if not (isinstance(state, list) and all(isinstance(row, list) and len(row) == 4 for row in state)):
            raise Fault("nonsense", "The solution's process describes its state in no known form.")
        return state

    def set_state(self, values: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> None:
        """Give parameters and buffers their values, by the solution's `names`; the others get their own back."""
        given = {names[name]: tensor for name, tensor in values.items() if name in names}
        updated = [names[old] for old, _ in self.form.updated if old in names]
        self._ask("state", {"names": list(given), "updated": updated}, *map(_bytes, given.values()))

    def load(self, slots: Sequence[Sequence[torch.Tensor]]) -> None:
        """Put inputs into slots."""
        specs = [[spec.shape, spec.dtype] for spec in self.task.graph.inputs]
        blobs = [_bytes(tensor) for tensors in slots for tensor in tensors]
        self._ask("load", {"slots": len(slots), "inputs": specs}, *blobs)

    def go(self, slots: Sequence[int], patches: Sequence[Patch] | None = None) -> Clocked:
        """Call on some slots. The clock is the judge's; what is patched in is known to nobody before it runs."""
        blobs: list[bytes] = []
        for patch in patches or ():
            for places, values in zip(patch.places, patch.values):
                blobs += [_bytes(places), _bytes(values)]
        message = {"slots": list(slots), "patched": patches is not None, "copy": self.copy}
        before = self._solution.cpu_seconds()
        time.sleep(_SETTLE)
        start_cpu = self._solution.cpu_seconds()
        start = time.perf_counter()
        answer, _ = self._ask("go", message, *blobs)
        wall = time.perf_counter() - start
        end_cpu = self._solution.cpu_seconds()
        time.sleep(_SETTLE)
        after = self._solution.cpu_seconds()
        sums = answer.get("sums")
        if not (isinstance(sums, list) and len(sums) == len(slots) and all(isinstance(row, list) for row in sums)):
            raise Fault("nonsense", "The solution's process answers a call with no sums over its outputs.")
        inside = _between(start_cpu, end_cpu)
        return Clocked(wall, inside, _between(before, start_cpu) + _between(end_cpu, after), tuple(map(tuple, sums)))

    def fetch(self, slot: int, inputs: Sequence[torch.Tensor], sums: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the outputs of a slot by name, on the judge's device.

        Raises Fault where they are not what was summed up when the call came back, or where an input has changed.
        """
        answer, blobs = self._ask("fetch", {"slot": slot}, max_blob=2 * self._due + _ROOM)
        forms = answer.get("forms")
        if not isinstance(forms, list) or len(forms) != len(blobs):
            raise Fault("nonsense", "The solution's process describes its outputs in no known form.")
        expected = len(self.form.order)
        if len(blobs) > expected:
            raise Fault("too_many_outputs", f"forward returns {len(blobs)} tensors, {expected} are due.")
        outputs = [_tensor(form, blob) for form, blob in zip(forms, blobs)]
        if [_sum(output) for output in outputs] != list(sums):
            raise Fault("changed_after_answer", "Outputs changed after the call had come back: it was not finished.")
        kept = [place for place in range(len(inputs)) if place not in self.form.written]
        said = answer.get("inputs")
        if not isinstance(said, list) or [said[i] for i in kept] != [_sum(inputs[i].cpu()) for i in kept]:
            raise Fault("input_overwritten", "The solution wrote to its inputs.")
        return {spec.name: output.to(self.device) for spec, output in zip(self.form.order, outputs)}

    def operators(self) -> list[tuple[str, int]]:
        """Call on slot 0 once more and return which operators of PyTorch the solution says that it used."""
        answer = self._ask("report", {"slot": 0})[0].get("operators")
        rows = answer if isinstance(answer, list) else []
        return [(str(row[0]), int(row[1])) for row in rows if isinstance(row, list) and len(row) == 2]

    def once(self, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Call on one set of inputs."""
        self.load([inputs])
        clocked = self.go([0])
        return self.fetch(0, inputs, clocked.sums[0])

    def cpu_seconds(self) -> float | None:
        """Processor time of the whole sandbox so far."""
        return self._solution.cpu_seconds()

    def _ask(
        self, do: str, message: dict[str, object], *blobs: bytes, seconds: float | None = None, max_blob: int = 0
    ) -> tuple[dict[str, object], list[bytes]]:
        limit = self._limits.call_seconds if seconds is None else seconds
        return self._solution.ask(do, message, *blobs, seconds=limit, max_blob=max_blob)


def _between(start: float | None, end: float | None) -> float:
    return 0.0 if start is None or end is None else max(0.0, end - start)


def _bytes(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes()
    return data


def _sum(tensor: torch.Tensor) -> int:
    flat = tensor.contiguous().reshape(-1)
    return int(flat.view(_WORDS[flat.element_size()]).sum(dtype=torch.int64))


def _tensor(form: object, blob: bytes) -> torch.Tensor:
    """Make a tensor of bytes and of what was said of them, where the two agree."""
    if isinstance(form, list) and len(form) == 3 and isinstance(form[0], list) and form[1] in DTYPE_BYTES:
        shape, dtype = form[0], str(form[1])
        sound = len(shape) <= 32 and all(isinstance(extent, int) and 0 <= extent < 1 << 48 for extent in shape)
        if sound and math.prod(shape) * DTYPE_BYTES[dtype] == len(blob):
            if not blob:
                return torch.empty(shape, dtype=dtype_of(dtype))
            if dtype == "bool" and not set(blob) <= {0, 1}:
                raise Fault("wrong_output", "An output of truth values holds bytes that are neither 0 nor 1.")
            return torch.frombuffer(bytearray(blob), dtype=dtype_of(dtype)).reshape(shape)
    kind = form[1] if isinstance(form, list) and len(form) > 1 and isinstance(form[1], str) else "unknown"
    raise Fault("wrong_output", f"An output ({kind[:40]}) does not have the bytes that its shape and dtype need.")
