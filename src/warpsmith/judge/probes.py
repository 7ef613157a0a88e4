"""Questions that inputs of one family cannot ask.

* *Exactness*: sums of odd 12-bit integers against zeros and ones are exact in float32 and in nothing narrower.
* *Mixtures*: a shortcut that some rows justify must not be taken for the others; a sign must not be taken for granted.
* *Memory*: the same call with another fill of outputs and scratch must give the same bits; where atomics add up
  floating values in no fixed order, values within the limit.
* *Replay*: six calls in one loaded module, with new contents at the same addresses, each checked. It catches
  results kept in `__device__` variables, whatever they are keyed on, and counters that a call leaves behind. It is
  run where the program has such variables; nothing else outlives a call.

Not covered: a cache keyed on all of the contents, which is not wrong but shows in the timing of fresh contents; one
that bides its time for more calls than are replayed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import torch

from warpsmith.judge.mixtures import EDITED, MIRRORED
from warpsmith.judge.numerics import compare
from warpsmith.judge.references import Reference
from warpsmith.judge.trial import Trial, conduct, describe, same_bits
from warpsmith.program import Builder
from warpsmith.records import BoundLaunch, BoundPlan, Build, Failure, Program, Stage, TensorSpec

EXACT = "exact"
MIXTURES = ("equal+normal", "normal+equal", "nominal+normal", f"offset+{MIRRORED}")
REPLAYED = 2 * ("nominal", f"nominal+{EDITED}", "normal")
_COPY_THREADS = 256
_GLOBAL_VARIABLE = re.compile(r"^\s*(?:\.(?:visible|weak|extern|common)\s+)*\.global\s", re.MULTILINE)

_COPY_SOURCE = """
extern "C" __global__ void {name}(unsigned int *to, const unsigned int *from, int words, int rest) {{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < words) to[i] = from[i];
    if (i < rest) ((unsigned char *)(to + words))[i] = ((const unsigned char *)(from + words))[i];
}}
"""


def exactness(trial: Trial, families: tuple[str, ...], fill: int) -> Failure | None:
    """Draw integers whose sums are exact in the task's precision; a deviation is less precision than was asked for."""
    if EXACT not in families:
        return None
    seed = trial.references.seed_for(EXACT, trial.candidate.key)
    for either in (seed, seed ^ 1):  # The parity of the seed says which operand holds the integers.
        failure = trial.verify(Stage.PROBES, trial.references.get(EXACT, either), fill=fill)
        if failure is not None and failure.reason == "wrong_value":
            hint = " These inputs have exact answers: the program computes in less precision than the task declares."
            return replace(failure, reason="inexact", message=failure.message + hint)
        if failure is not None:
            return failure
    return None


def mixtures(trial: Trial, families: tuple[str, ...], fill: int) -> Failure | None:
    """Draw tensors of which one part belongs to one family and the rest to another, and a mirror image."""
    for family in MIXTURES:
        if set(family.split("+")) <= {*families, MIRRORED}:
            failure = trial.verify(Stage.PROBES, _reference(trial, family), fill=fill)
            if failure is not None:
                return failure
    return None


def memory(trial: Trial, reference: Reference, fill: int) -> Failure | None:
    """Repeat the first call with another fill and compare the bits of the outputs."""
    if trial.first is None:
        raise RuntimeError("the run stage has not passed")
    again = trial.call(reference, fill=fill)
    failure = trial.examine(Stage.PROBES, reference, again, fill=fill)
    if failure is not None or _has_atomics(trial):
        return failure
    for name, output in trial.first.outputs.items():
        if not same_bits(output, again.outputs[name]):
            message = (
                f"Output {name} changes when only the previous contents of outputs and scratch change, "
                "so the program reads memory that it has not written."
            )
            return Failure(Stage.PROBES, "fill_dependent", message, reference.family, reference.seed)
    return None


def replay(trial: Trial, builder: Builder, architecture: str, fill: int) -> Failure | None:
    """Call the program six times in one module, each time with new contents at the same addresses."""
    if not has_state(trial.built):
        return None
    name = f"replay_copy_{trial.candidate.key}"
    program = trial.candidate.program
    extended = Program(program.source + _COPY_SOURCE.format(name=name), program.plan)
    build = builder.build(extended, dict(trial.candidate.tunables), architecture)
    if not build.ok:
        message = "The source cannot be followed by another kernel, so calls cannot be replayed in one module."
        return Failure(Stage.PROBES, "not_replayable", message, diagnostics=build.diagnostics)
    references = [_reference(trial, family) for family in REPLAYED]
    plan, inputs, outputs = _replayed(trial, name, references)
    execution = trial.device.run(
        build, plan, inputs, outputs, fill=fill, count=False, budget=trial.budget * (len(references) + 1)
    )
    failure = conduct(replace(execution, overwritten=()), Stage.PROBES, references[0])
    if failure is not None:
        return replace(failure, message=f"In repeated calls: {failure.message}")
    for step, reference in enumerate(references):
        got = {spec.name: execution.outputs[_kept(spec.name, step)] for spec in trial.task.graph.results}
        comparison = compare(reference, got, trial.task.tolerance)
        if comparison.mismatch is not None:
            message = f"Call {step + 1} of {len(references)} with new contents at the same addresses: "
            message += describe(comparison.mismatch) + " Something is kept from one call to the next."
            return Failure(Stage.PROBES, "stale_state", message, reference.family, reference.seed, comparison.mismatch)
    return None


def has_state(build: Build) -> bool:
    """Whether the module has variables in global memory, which outlive a call."""
    return _GLOBAL_VARIABLE.search(build.ptx) is not None


def _replayed(
    trial: Trial, kernel: str, references: list[Reference]
) -> tuple[BoundPlan, dict[str, torch.Tensor], list[TensorSpec]]:
    """Return one plan for all calls: contents in, the candidate's launches, outputs kept, and again."""
    inputs = dict(references[0].arguments)
    outputs = list(trial.task.graph.results)
    launches: list[BoundLaunch] = []
    for step, reference in enumerate(references):
        for spec in trial.task.graph.arguments if step else ():
            inputs[_kept(spec.name, step)] = reference.arguments[spec.name]
            launches += _copy(kernel, spec.name, _kept(spec.name, step), spec)
        launches += trial.plan.launches
        for spec in trial.task.graph.results:
            outputs.append(replace(spec, name=_kept(spec.name, step)))
            launches += _copy(kernel, _kept(spec.name, step), spec.name, spec)
    return replace(trial.plan, launches=tuple(launches)), inputs, outputs


def _copy(kernel: str, to: str, origin: str, spec: TensorSpec) -> Iterator[BoundLaunch]:
    words, rest = divmod(spec.nbytes, 4)
    blocks = -(-max(words, rest) // _COPY_THREADS)
    if blocks:
        yield BoundLaunch(kernel, (blocks, 1, 1), (_COPY_THREADS, 1, 1), 0, (to, origin, words, rest))


def _kept(name: str, step: int) -> str:
    return f"{name}__call{step}"


def _reference(trial: Trial, family: str) -> Reference:
    base = family.split("+")[0]
    return trial.references.get(family, trial.references.seed_for(base, trial.candidate.key))


def _has_atomics(trial: Trial) -> bool:
    return any(dict(counters.instructions).get("atomic", 0) for counters in trial.counters)
