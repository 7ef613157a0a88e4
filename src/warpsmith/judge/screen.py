"""Before anything runs: does the plan fit the task, and do the built kernels fit the plan?

What stands here are breaches of contract that need no judgement: a name that does not exist, an output that nothing
is told about, a kernel that is not there. The text of the device code is never searched for bad words; what a
program does is found out by running it.
"""

from __future__ import annotations

import re

from warpsmith.errors import ProgramError
from warpsmith.program import bind
from warpsmith.program.kernels import externals_in
from warpsmith.program.validate import call_place
from warpsmith.records import BoundPlan, Build, Candidate, Diagnostic, Failure, GpuSpec, Stage, Task

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*(?:\((.*?)\))?", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.([a-z]+\d+)")
_DEVICE_HEAP = frozenset({"malloc", "free"})
_WRITTEN = {"vprintf": "printf", "__assertfail": "assert"}
"""How functions that the compiler calls so are written in a program."""
_POINTERS = frozenset({"u64", "b64", "s64"})


def screen(task: Task, candidate: Candidate, gpu: GpuSpec) -> BoundPlan | Failure:
    """Bind the plan to the task's tensors. A plan that cannot be bound, or that gives no kernel an output, fails."""
    if candidate.task_key != task.key:
        return _fail("wrong_task", f"The candidate is for task {candidate.task_key}, not for {task.key}.")
    tensors = {spec.name: spec for spec in task.graph.arguments + task.graph.results}
    try:
        plan = bind(candidate.program.plan, tensors, dict(candidate.tunables), gpu, task.tolerance)
    except ProgramError as error:
        return _fail("bad_plan", str(error))
    given = {argument for launch in plan.launches for argument in launch.args} | {
        call.out.tensor for call in plan.calls
    }
    missing = [spec.name for spec in task.graph.results if spec.numel and spec.name not in given]
    if missing:
        return _fail("output_unused", f"No step is given the output {', '.join(missing)}, so nothing writes it.")
    inputs = {spec.name for spec in task.graph.arguments}
    for number, call in enumerate(candidate.program.plan.calls, 1):
        if call.out.tensor in inputs:
            place = call_place(number, call.op)
            return _fail("input_overwritten", f"{place}: would write to {call.out.tensor}, which is an input.")
    return plan


def refused(build: Build) -> Failure:
    """Say why the compiler refused: its first error."""
    errors = [d for d in build.diagnostics if d.severity == "error"]
    first = errors[0] if errors else Diagnostic("error", 0, 0, "the compiler gave no message")
    where = f"line {first.line}: " if first.line else ""
    return Failure(Stage.BUILD, "compile_error", f"{where}{first.message}", diagnostics=build.diagnostics)


def mismatched(build: Build, plan: BoundPlan) -> Failure | None:
    """Check every launch against the kernels that were built: name, number of arguments, pointers where tensors go."""
    outside = externals_in(build.ptx)
    if heap := outside & _DEVICE_HEAP:
        message = f"The device code calls {', '.join(sorted(heap))}; memory that outlives a call is not to be had."
        return Failure(Stage.BUILD, "device_heap", message)
    if outside:
        called = ", ".join(_WRITTEN.get(name, name) for name in sorted(outside))
        message = f"The device code calls {called}; nothing outside of the program is to be had."
        return Failure(Stage.BUILD, "no_such_function", message)
    kernels = {match[1]: _PARAMETER.findall(match[2] or "") for match in _ENTRY.finditer(build.ptx)}
    for launch in plan.launches:
        if launch.kernel not in kernels:
            defined = ", ".join(kernels) or "none"
            message = f'There is no extern "C" __global__ function {launch.kernel}; defined: {defined}.'
            return Failure(Stage.BUILD, "no_such_kernel", message)
        parameters = kernels[launch.kernel]
        if len(parameters) != len(launch.args):
            message = f"Kernel {launch.kernel} takes {len(parameters)} arguments; the plan gives {len(launch.args)}."
            return Failure(Stage.BUILD, "wrong_arguments", message)
        for position, (argument, kind) in enumerate(zip(launch.args, parameters, strict=True), 1):
            if isinstance(argument, str) and kind not in _POINTERS:
                message = f"Argument {position} of {launch.kernel} is no pointer, but the plan gives {argument}."
                return Failure(Stage.BUILD, "wrong_arguments", message)
    return None


def _fail(reason: str, message: str) -> Failure:
    return Failure(Stage.SCREEN, reason, message)
