"""Calls of a solution in its sandbox: what goes in as bytes, what comes out as bytes, and what must hold for both."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from warpsmith.judge.foreign.bits import Layout, total
from warpsmith.judge.foreign.form import Form
from warpsmith.judge.foreign.process import Fault, Solution
from warpsmith.judge.sandbox import Limits
from warpsmith.records import DTYPE_BYTES, Task, Tolerance
from warpsmith.task.evaluate import dtype_of

SEED = 42
_ROOM = 1 << 16
"""Bytes that an answer may be longer than what is due, so that a wrong shape can be named."""
_SETTLE = 0.003


@dataclass(frozen=True, eq=False)
class Sealed:
    """What inputs turn into once the clock runs: the key to it, and for each input words [slots, groups, run].

    What is due to be called comes first, in its order; the rest is random, so that nobody can tell how many these are.
    """

    key: int
    words: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Clocked:
    """Seconds of wall clock between question and answer; processor seconds around it and while all was quiet."""

    wall: float
    inside: float
    quiet: float
    sums: tuple[tuple[int, ...], ...]


class Caller:
    """Speaks with one solution about one task. Every method raises Fault where the solution fails.

    With `copy`, outputs are copied after each call. `nbytes` is the size of a call's inputs and outputs.
    """

    def __init__(self, task: Task, form: Form, solution: Solution, limits: Limits, device: str) -> None:
        self.task = task
        self.form = form
        self.copy = False
        self.nbytes = sum(spec.nbytes for spec in task.graph.inputs + task.graph.results)
        self.device = torch.device(device)
        self._solution = solution
        self._limits = limits
        self._names: Mapping[str, str] = {}
        self._due = sum(spec.nbytes for spec in form.order)
        self._layouts = [Layout(spec.shape, dtype_of(spec.dtype)) for spec in task.graph.inputs]

    def prepare(self, tolerance: Tolerance) -> None:
        """Set the driver up, before the solution is loaded."""
        message = {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "matmul_tf32": tolerance.matmul_tf32,
            "conv_tf32": tolerance.conv_tf32,
            "form": self.form.call,
            "written": self.form.written,
            "outputs": [[spec.shape, spec.dtype] for spec in self.form.order],
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

    def seal(
        self, inputs: Sequence[Sequence[torch.Tensor]], others: Sequence[Sequence[torch.Tensor]], slots: int
    ) -> tuple[Sealed, list[list[torch.Tensor]]]:
        """Seal an eighth of the elements of `others` for calls on `inputs`; return it and the inputs of these calls."""
        key = secrets.randbits(63)
        generator = torch.Generator(self.device).manual_seed(key)
        sealed, seen = [], [list(tensors) for tensors in inputs]
        for number, layout in enumerate(self._layouts):
            random = bytearray(secrets.token_bytes(slots * layout.groups * layout.run * layout.dtype.itemsize))
            words = torch.frombuffer(random, dtype=layout.word).view(slots, layout.groups, layout.run)
            for some, places, pad in layout.secrets(generator, len(inputs)):
                for call, at, mask in zip(range(some.start, some.stop), places, pad):
                    values = layout.runs(others[call][number])[at]
                    words[call] = (values ^ mask).cpu()
                    whole = layout.runs(inputs[call][number]).index_copy(0, at, values)
                    seen[call][number] = layout.whole(whole)
            sealed.append(words)
        return Sealed(key, tuple(sealed)), seen

    def load(self, slots: Sequence[Sequence[torch.Tensor]], sealed: Sealed | None = None) -> None:
        """Put inputs into slots, and beside them what `go` will put in."""
        specs = [[spec.shape, spec.dtype] for spec in self.task.graph.inputs]
        blobs = [_bytes(tensor) for tensors in (*slots, sealed.words if sealed else ()) for tensor in tensors]
        self._ask("load", {"slots": len(slots), "inputs": specs, "sealed": sealed is not None}, *blobs)

    def go(self, slots: Sequence[int], sealed: Sealed | None = None) -> Clocked:
        """Call on some slots. The clock is the judge's; what is sealed is known to nobody before it runs."""
        message: dict[str, object] = {"slots": list(slots), "key": sealed.key if sealed else None, "copy": self.copy}
        before = self._solution.cpu_seconds()
        time.sleep(_SETTLE)
        start_cpu = self._solution.cpu_seconds()
        answer, _ = self._ask("go", message)
        wall = self._solution.wall
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
        if [total(output) for output in outputs] != list(sums):
            raise Fault("changed_after_answer", "Outputs changed after the call had come back: it was not finished.")
        kept = [place for place in range(len(inputs)) if place not in self.form.written]
        said = answer.get("inputs")
        if not isinstance(said, list) or [said[i] for i in kept] != [total(inputs[i]) for i in kept]:
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


def _tensor(form: object, blob: bytes) -> torch.Tensor:
    """Make a tensor of bytes and of what was said of them, where the two agree."""
    if isinstance(form, list) and len(form) == 2 and isinstance(form[0], list) and form[1] in DTYPE_BYTES:
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
