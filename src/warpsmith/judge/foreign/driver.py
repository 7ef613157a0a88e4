"""The solution's side: imports it, constructs it, calls it, and hands out what it returned, as bytes.

This runs in the sandbox, in one process with the solution, which may change any of it. So nothing that it says is
believed: the judge holds the outputs against its own answers and reads its own clock. What is here must only make
sure that an honest solution is treated fairly: fresh inputs for every call, and inside the clock as little as can be
beside the calls, in steps that do not overlap them. Until there is a solution, a stand-in takes the place of its
results, so that the judge can find out how long the rest takes.

Requests are messages of `wire` with a random `id`, which the answer repeats: what is sent unasked cannot match.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from warpsmith import wire
from warpsmith.judge.foreign.bits import Bank, Layout, total, totals

_MESSAGE = 2000
MODULE = "solution"


class Refused(Exception):
    """What the solution did cannot be used. `kind` is a reason, the text a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Driver:
    """Holds a solution and the inputs and outputs of its calls, by slot."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.model: torch.nn.Module | None = None
        self.form: Any = None
        self.constructed: dict[str, torch.Tensor] = {}
        self.updated: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.written: list[int] = []
        self.banks: list[Bank] = []
        self.inputs: list[list[torch.Tensor]] = []
        self.arguments: list[Any] = []
        self.outputs: dict[int, list[torch.Tensor]] = {}
        self.stand_in: Any = None

    # ------------------------------------------------------------------------------------------------------- requests

    def prepare(self, message: wire.Message, _: list[bytes]) -> tuple[wire.Message, list[bytes]]:
        """Choose device and number of threads before anything foreign is loaded."""
        self.device = torch.device(message["device"])
        torch.set_num_threads(message["threads"])
        torch.backends.cuda.matmul.allow_tf32 = message["matmul_tf32"]
        torch.backends.cudnn.allow_tf32 = message["conv_tf32"]
        self.form, self.written = message["form"], message["written"]
        outputs = [(tuple(shape), getattr(torch, dtype)) for shape, dtype in message["outputs"]]
        made = [torch.zeros(shape, dtype=dtype, device=self.device) for shape, dtype in outputs]
        self.stand_in = made[0] if len(made) == 1 else made
        self._synchronise()
        return {}, []

    def build(self, message: wire.Message, _: list[bytes]) -> tuple[wire.Message, list[bytes]]:
        """Import the solution's text and construct `ModelNew` as KernelBench does, under `seed`."""
        self.banks, self.inputs, self.arguments, self.outputs, self.stand_in = [], [], [], {}, None
        _seed(message["seed"])
        module = sys.modules.get(MODULE) or _import(message["source"])
        found = getattr(module, "ModelNew", None)
        if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
            raise Refused("no_model", "The solution defines no torch.nn.Module called ModelNew.")
        args, kwargs = decode(message["init"], [])
        _seed(message["seed"])
        self.model = found(*args, **kwargs).to(self.device)
        self.constructed = {name: tensor.detach().clone() for name, tensor in self._state().items()}
        kinds = {name: "parameter" for name, _ in self.model.named_parameters(remove_duplicate=False)}
        described = [
            [kinds.get(name, "buffer"), name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for name, tensor in self.constructed.items()
        ]
        return {"state": described}, []

    def state(self, message: wire.Message, blobs: list[bytes]) -> tuple[wire.Message, list[bytes]]:
        """Set the original parameters and buffers, and over them those that are given."""
        own, given = self._state(), dict(zip(message["names"], blobs))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(self.constructed[name])
            for name, data in given.items():  # Last, since one tensor may have several names.
                own[name].copy_(_tensor(data, own[name].shape, own[name].dtype))
            self.updated = [(own[name], own[name].clone()) for name in message["updated"]]
        return {}, []

    def load(self, message: wire.Message, blobs: list[bytes]) -> tuple[wire.Message, list[bytes]]:
        """Put inputs into slots, keep beside them what is sealed, and forget all that there was."""
        self.banks, self.inputs, self.arguments, self.outputs = [], [], [], {}  # First, to make room for what comes.
        left, slots = iter(blobs), message["slots"]
        layouts = [Layout(tuple(shape), getattr(torch, dtype)) for shape, dtype in message["inputs"]]
        self.banks = [Bank(layout, slots, self.device) for layout in layouts]
        self.inputs = [[bank.slot(number) for bank in self.banks] for number in range(slots)]
        self.arguments = [decode(self.form, tensors) for tensors in self.inputs]
        for tensors in self.inputs:
            for tensor in tensors:
                tensor.copy_(_tensor(next(left), tensor.shape, tensor.dtype))
        for bank in self.banks if message["sealed"] else ():
            shape = (slots, bank.layout.groups, bank.layout.run)
            bank.seal(_tensor(next(left), shape, bank.layout.word))
        self._synchronise()
        return {}, []

    def go(self, message: wire.Message, _: list[bytes]) -> tuple[wire.Message, list[bytes]]:
        """Unseal the inputs of some slots, call the solution on each, and sum up the outputs. The clock runs.

        Each step waits for the device, so that what the first and the last take adds to the calls' time on any device.
        """
        slots, key = message["slots"], message["key"]
        with torch.no_grad():
            if key is not None:
                generator = torch.Generator(self.device).manual_seed(key)
                chosen = torch.tensor(slots, dtype=torch.int64, device=self.device)
                for bank in self.banks:
                    bank.unseal(generator, chosen)
                self._synchronise()
            results = self._calls(slots, message["copy"]) if self.model is not None else [self.stand_in for _ in slots]
            self._synchronise()
            dense = [self._dense(result) for result in results]
            if len({len(row) for row in dense}) > 1:
                raise Refused("wrong_output", "forward returns more tensors in some calls than in others.")
            self.outputs.update(zip(slots, dense))
            sums = [totals(column) for column in zip(*dense)]
            return {"sums": [[column[i] for column in sums] for i in range(len(slots))]}, []

    def fetch(self, message: wire.Message, _: list[bytes]) -> tuple[wire.Message, list[bytes]]:
        """Return shape, dtype and bytes of the outputs of a slot, and sums over its inputs."""
        outputs = self.outputs[message["slot"]]
        forms = [[list(output.shape), str(output.dtype).removeprefix("torch.")] for output in outputs]
        inputs = [total(tensor) for tensor in self.inputs[message["slot"]]]
        return {"forms": forms, "inputs": inputs}, [_bytes(output) for output in outputs]

    def report(self, message: wire.Message, _: list[bytes]) -> tuple[wire.Message, list[bytes]]:
        """Call once and count the operators of PyTorch that the call uses."""
        watch = _Watch()
        with torch.no_grad(), watch:
            self._calls([message["slot"]], copy=False)
        return {"operators": sorted(watch.counts.items())}, []

    # -------------------------------------------------------------------------------------------------------- internal

    def _state(self) -> dict[str, torch.Tensor]:
        assert self.model is not None
        parameters = self.model.named_parameters(remove_duplicate=False)
        return {**dict(parameters), **dict(self.model.named_buffers(remove_duplicate=False))}

    def _calls(self, slots: Sequence[int], copy: bool) -> list[Any]:
        """Call the solution on slots; with `copy`, save each call's outputs from the next one."""
        assert self.model is not None
        results: list[Any] = []
        for slot in slots:
            for tensor, before in self.updated:
                tensor.copy_(before)
            args, kwargs = self.arguments[slot]
            result = self.model(*args, **kwargs)
            if self.updated or self.written:
                changed = [tensor.clone() for tensor, _ in self.updated]
                result = [result, changed, [self.inputs[slot][place] for place in self.written]]
            results.append([leaf.clone() for leaf in self._leaves(result)] if copy else result)
        return results

    def _leaves(self, result: Any) -> list[torch.Tensor]:
        """Return the tensors of a result in order."""
        leaves = [result] if isinstance(result, torch.Tensor) else [x for x in tree_leaves(result) if x is not None]
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                raise Refused("not_a_tensor", f"forward returns a {type(leaf).__name__}, not tensors only.")
            if leaf.device.type != self.device.type:
                raise Refused("wrong_device", f"forward returns a tensor on {leaf.device}, not on {self.device}.")
        return leaves

    def _dense(self, result: Any) -> list[torch.Tensor]:
        """Make outputs plain, dense and row-major; whatever a subclass puts off is computed here."""
        return [leaf.detach().contiguous().as_subclass(torch.Tensor) for leaf in self._leaves(result)]

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def warm_up() -> None:
    """Have PyTorch import what it puts off until it is first used, so that no solution's first call pays for it."""
    with torch.no_grad(), _Watch():
        total(torch.zeros(2) + 1.0)


def encode(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return arguments as JSON values; a tensor becomes its number among `tensors`, to which it is appended.

    Raises TypeError for what is neither a tensor, a number, a text nor a container of those.
    """
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [encode(item, tensors) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": [[key, encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"an argument of type {type(value).__name__}")


def decode(value: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """Undo `encode`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dtype":
        return getattr(torch, content)
    if kind == "dict":
        return {key: decode(item, tensors) for key, item in content}
    items = [decode(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _import(source: str) -> ModuleType:
    """Import the text as a file, as the tools that look for a function's source expect it."""
    file = Path(os.environ["TMPDIR"]) / f"{MODULE}.py"
    file.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(MODULE, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    return module


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def _tensor(data: bytes, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    if not data:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(tuple(shape))


def _bytes(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().tobytes()
    return data


def serve(read: int, write: int) -> None:
    """Answer requests until there are no more. Whatever a request raises becomes its answer."""
    driver = Driver()
    requests: dict[str, Callable[[wire.Message, list[bytes]], tuple[wire.Message, list[bytes]]]] = {
        name: getattr(driver, name) for name in ("prepare", "build", "state", "load", "go", "fetch", "report")
    }
    while True:
        try:
            message, blobs = wire.receive(read)
        except wire.Closed:
            return
        answer: wire.Message = {}
        data: list[bytes] = []
        caught = _Caught()
        with caught:
            answer, data = requests[message["do"]](message, blobs)
        if caught.error is not None:
            answer, data = _raised(caught.error), []
        wire.send(write, {**answer, "id": message["id"]}, *data)


class _Caught:
    """Keeps whatever foreign code raises, `SystemExit` included: it becomes an answer."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> bool:
        self.error = error
        return True


def _raised(error: BaseException) -> wire.Message:
    kind = error.kind if isinstance(error, Refused) else "raised"
    if isinstance(error, SyntaxError):
        kind = "syntax_error"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        kind = "out_of_memory"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).stem == MODULE]
    text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    return {"error": kind, "message": text[:_MESSAGE], "line": lines[-1] if lines else 0}
