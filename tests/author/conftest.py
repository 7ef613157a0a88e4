"""Compile a module with the built-in author, run it in the simulator, compare with float64 PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.program import Builder, bind
from warpsmith.records import Task
from warpsmith.task import evaluate, task_from_module

GPU = gpu("H200")


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    builder = Builder(tmp_path_factory.mktemp("cache"))
    yield builder
    builder.close()


class Checker:
    """Runs recipes; `largest_error` is relative to the largest expected magnitude of an output."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.simulator = Simulator(GPU)

    def task(self, module: torch.nn.Module, *inputs: torch.Tensor) -> Task:
        return task_from_module(module, inputs)

    def compile(self, task: Task, recipe: Recipe | None = None) -> Compiled:
        return compile_graph(task.graph, recipe or Recipe(), GPU)

    def largest_error(self, task: Task, compiled: Compiled, *, sanitize: bool = False) -> float:
        architecture = self.simulator.architecture
        if "wgmma" not in compiled.program.source:  # Of those the assembler must not complain.
            architecture = architecture.replace("sm_", "compute_")
        build = self.builder.build(compiled.program, dict(compiled.tunables), architecture)
        assert build.ok, (build.diagnostics, compiled.program.source)
        assert not any("Performance Loss" in each.message for each in build.diagnostics), build.diagnostics
        specs = {s.name: s for s in (*task.graph.arguments, *task.graph.results)}
        plan = bind(compiled.program.plan, specs, dict(compiled.tunables), GPU)
        values = {**task.state, **task.examples}
        inputs = {s.name: values[s.name].contiguous() for s in task.graph.arguments}
        run = self.simulator.run(build, plan, inputs, task.graph.results, fill=7, sanitize=sanitize, count=False)
        assert not run.findings, (run.findings[:2], compiled.program.source)
        assert not run.overwritten
        assert not run.trampled
        worst = 0.0
        for name, due in evaluate(task.graph, inputs, "float64").items():
            got = run.outputs[name]
            assert got.shape == due.shape
            if not due.dtype.is_floating_point:
                assert torch.equal(got, due.to(got.dtype)), compiled.program.source
                continue
            got = got.double()
            assert torch.equal(got.isnan(), due.isnan()), compiled.program.source
            assert torch.equal(got.isinf(), due.isinf()), compiled.program.source
            finite = due.isfinite()
            scale = due[finite].abs().max().item() if finite.any() else 1.0
            gap = (got - due)[finite].abs().max().item() if finite.any() else 0.0
            worst = max(worst, gap / max(scale, 1e-30))
        return worst


@pytest.fixture(scope="session")
def checker(builder: Builder) -> Checker:
    return Checker(builder)


Module = Callable[..., torch.Tensor]
