"""Judges a solution that has host code: a KernelBench file that defines `ModelNew`.

The stages are those of `warpsmith.judge.judge` as far as they apply. The solution lives in a sandbox and is given
inputs as bytes; the reference, the answers, the limits and the clock stay here. Its verdict is marked as not contained,
since host code cannot be kept from everything: see `warpsmith.judge.sandbox` and `series` for what is not covered.

Parameters: those of the task are given to the solution before each call, drawn anew for each input family, where its
state corresponds to the task's. A solution that prepares its weights in the constructor keeps those of seed 42, and is
given only the parameters and buffers that are all one value there, such as gains of 1 and biases of 0: these it must
read in forward, since leaving them out would show in no other way. Where nothing corresponds, it keeps its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from warpsmith.device.catalog import GPUS
from warpsmith.judge.foreign.calls import Caller
from warpsmith.judge.foreign.claims import profile_of
from warpsmith.judge.foreign.form import Form, form_of, matched
from warpsmith.judge.foreign.overhead import Overhead, overhead
from warpsmith.judge.foreign.process import Fault, template
from warpsmith.judge.foreign.series import Series
from warpsmith.judge.foreign.wires import notes
from warpsmith.judge.mixtures import MIRRORED, draw_any
from warpsmith.judge.numerics import compare, limit_for
from warpsmith.judge.probes import EXACT, MIXTURES
from warpsmith.judge.references import Due, Reference, References, refer
from warpsmith.judge.sandbox import Limits
from warpsmith.judge.tf32 import policy_of_a_gpu
from warpsmith.judge.trial import describe
from warpsmith.records import Failure, FamilyResult, GpuSpec, Profile, Stage, Task, Timing, Verdict, digest
from warpsmith.task import bound, draw, evaluate, families_for

NOMINAL = "nominal"
_MOST_SOURCE = 1 << 20
_LIMITS = Limits()

Mode = Literal["given", "constructed", "own"]


def judge_foreign(
    task: Task,
    source_text: str,
    *,
    device: str = "cpu",
    seed: int,
    families: Sequence[str] | None = None,
    limits: Limits = _LIMITS,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    gpu: GpuSpec | None = None,
    references: References | None = None,
    unsandboxed: bool = False,
) -> Verdict:
    """Judge the text of a solution for `task` on `device`, a PyTorch device such as `cpu` or `cuda:0`.

    `seed` fixes which inputs are drawn; take one that a solution cannot guess. `families` defaults to all that say
    something about the task. `init` are the constructor's arguments where the task's file does not give them. `gpu`
    is what `device` is, for the physical bound; for a CPU the fastest GPU known stands in. `references` may be shared
    between solutions. Whoever names a GPU holds it meanwhile (`Device.exclusive`).

    Raises MachineError where this machine cannot make a sandbox, unless `unsandboxed` says that what there is will do;
    TaskError where the task's arguments cannot be sent to another process, or its module draws masks, as dropout does;
    ValueError for a GPU without `gpu`.
    """
    accelerated = torch.device(device).type == "cuda"
    if accelerated and gpu is None:
        raise ValueError("say which GPU the device is: without its peaks there is no physical bound")
    spec = gpu or max(GPUS.values(), key=lambda each: each.memory_bandwidth)
    held = references or References(task, seed, device=device)
    form = form_of(task, init)
    trial = _Trial(
        task, source_text, form, held, device, seed, tuple(families_for(task) if families is None else families)
    )
    with template(limits, devices=accelerated, unsandboxed=unsandboxed).spawn() as solution:
        trial.caller = Caller(task, form, solution, limits, device)
        return trial.verdict(spec, spec.name if accelerated else "CPU")


@dataclass(eq=False)
class _Trial:
    """One solution before the judge."""

    task: Task
    source: str
    form: Form
    references: References
    device: str
    seed: int
    families: tuple[str, ...]
    mode: Mode = "own"
    names: Mapping[str, str] = field(default_factory=dict)
    results: list[FamilyResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    overhead: Overhead = field(default_factory=Overhead)
    timing: Timing | None = None
    profile: Profile | None = None
    caller: Caller = field(init=False)

    @property
    def key(self) -> str:
        """Hash of task and text."""
        return digest("foreign", self.task.key, self.source)

    def verdict(self, gpu: GpuSpec, name: str) -> Verdict:
        """Go through the stages; the first failure ends."""
        stages: tuple[tuple[Stage, Callable[[], Failure | None]], ...] = (
            (Stage.SCREEN, self._screen),
            (Stage.BUILD, self._build),
            (Stage.RUN, self._run),
            (Stage.NUMERICS, self._numerics),
            (Stage.PROBES, self._probes),
            (Stage.TIME, lambda: self._time(gpu, name)),
            (Stage.PROFILE, self._report),
        )
        seconds: list[tuple[str, float]] = []
        failure: Failure | None = None
        stage = Stage.SCREEN
        for stage, step in stages:
            start = time.perf_counter()
            try:
                failure = step()
            except Fault as fault:
                failure = Failure(stage, fault.reason, fault.message)
            seconds.append((stage.name.lower(), time.perf_counter() - start))
            if failure is not None:
                break
        if failure is not None and self.notes:
            failure = replace(failure, message=f"{failure.message} Noted: {'; '.join(self.notes)}.")
        return Verdict(
            candidate_key=self.key,
            task_key=self.task.key,
            stage=stage,
            failure=failure,
            timing=None if failure else self.timing,
            families=tuple(self.results),
            profile=None if failure else self.profile,
            seconds=tuple(seconds),
            contained=False,
        )

    # --------------------------------------------------------------------------------------------------------- stages

    def _screen(self) -> Failure | None:
        self.notes += notes(self.source)
        if len(self.source) > _MOST_SOURCE:
            return Failure(Stage.SCREEN, "too_long", f"The solution's text has more than {_MOST_SOURCE} characters.")
        return None

    def _build(self) -> Failure | None:
        """Find out what the driver takes while all in the sandbox is ours; then let the solution in."""
        self.caller.prepare(self.task.tolerance)
        self.overhead = overhead(self.caller, self._inputs(self._first().arguments))
        if self.caller.cpu_seconds() is None:
            self.notes.append("this machine does not tell processor time, so work outside of the clock went unseen")
        described = self.caller.build(self.source)
        names = matched(self.task, described)
        if names is not None:
            self.mode, self.names = "given", names
        else:
            self.notes.append(
                "its state does not correspond to the task's, so it was judged on its own parameters only"
            )
        return None

    def _run(self) -> Failure | None:
        """Call on the task's own inputs and parameters; find out which parameters it can be given."""
        failure = self._verify(Stage.RUN, self._first())
        if failure is not None:
            return failure
        if self.mode == "given" and self.names:
            seed = self.references.seed_for(NOMINAL, self.key)
            drawn = self._verify(Stage.RUN, self.references.get(NOMINAL, seed))
            if drawn is not None:
                return self._verify_constructed(drawn) if drawn.mismatch is not None else drawn
        return self._aliased()

    def _verify_constructed(self, failure: Failure) -> Failure | None:
        """Let it keep the weights that it was constructed with; what is all one value there must still be read."""
        self.caller.build(self.source)
        self.mode = "constructed"
        again = self._verify(Stage.RUN, self._base())
        if again is not None:
            return replace(failure, message=failure.message + self._why_parameters(again))
        self.notes.append("it prepares weights in its constructor, so it was judged on those of seed 42 only")
        return self._aliased()

    def _why_parameters(self, again: Failure) -> str:
        if again.reason != "wrong_value":
            return ""
        return " Parameters were given other values before the call; a solution must read them in forward."

    def _aliased(self) -> Failure | None:
        """Two calls in a row: where both return one piece of memory, outputs are copied after each call."""
        failure = self._pair()
        if failure is not None and failure.reason == "wrong_value":
            self.caller.copy = True
            failure = self._pair()
            if failure is None:
                self.notes.append("it returns the same memory from every call, so each output was copied at once")
        if failure is None or failure.reason != "wrong_value":
            return failure
        return replace(failure, message=failure.message + " One call alone was right, two in a row were not.")

    def _pair(self) -> Failure | None:
        reference = self._base()
        other = self._reference(NOMINAL, self.references.seed_for(NOMINAL, self.key) ^ 1)
        other = self._refer(NOMINAL, other.seed, {**other.arguments, **self._state(reference.arguments)})
        self.caller.set_state(self._given(reference), self.names)
        both = [self._inputs(each.arguments) for each in (reference, other)]
        self.caller.load(both)
        clocked = self.caller.go([0, 1])
        for slot, each in enumerate((reference, other)):
            outputs = self.caller.fetch(slot, both[slot], clocked.sums[slot])
            failure = self._compared(Stage.RUN, each, outputs)
            if failure is not None:
                return failure
        return None

    def _numerics(self) -> Failure | None:
        """Compare every element on every family."""
        for family in self.families:
            if family != EXACT:
                reference = self._reference(family, self.references.seed_for(family, self.key))
                failure = self._verify(Stage.NUMERICS, reference)
                if failure is not None:
                    return failure
        return None

    def _probes(self) -> Failure | None:
        """Ask for exact sums and for mixtures, as `judge.probes` does of programs."""
        if EXACT in self.families and self.mode == "given":
            seed = self.references.seed_for(EXACT, self.key)
            for either in (seed, seed ^ 1):
                failure = self._verify(Stage.PROBES, self.references.get(EXACT, either))
                if failure is not None:
                    reason = "inexact" if failure.reason == "wrong_value" else failure.reason
                    return replace(failure, reason=reason)
        for mixture in MIXTURES:
            if set(mixture.split("+")) <= {*self.families, MIRRORED}:
                seed = self.references.seed_for(mixture.split("+")[0], self.key)
                failure = self._verify(Stage.PROBES, self._reference(mixture, seed))
                if failure is not None:
                    return failure
        return None

    def _time(self, gpu: GpuSpec, name: str) -> Failure | None:
        base = self._base()
        state = self._state(base.arguments)
        self.caller.set_state(self._given(base), self.names)
        first_seed = 1 + int(digest("timed", str(self.seed), self.key)[:6], 16)

        def fresh(seed: int) -> list[torch.Tensor]:
            return self._inputs(draw(self.task, NOMINAL, seed, self.device))

        def check(inputs: Sequence[torch.Tensor], outputs: dict[str, torch.Tensor]) -> Failure | None:
            names = [spec.name for spec in self.task.graph.inputs]
            return self._checked(base, {**state, **dict(zip(names, inputs))}, outputs)

        series = Series(self.task, self.caller, fresh, check, self.overhead, first_seed)
        outcome = series.measure(bound(self.task, gpu), gpu, name)
        if isinstance(outcome, Failure):
            return outcome
        self.timing = outcome
        return None

    def _report(self) -> Failure | None:
        """Say which of PyTorch's own operators do the work, as far as the solution's process tells."""
        first = self._first()
        self.caller.load([self._inputs(first.arguments)])
        self.profile = profile_of(self.caller.operators(), self.notes)
        return None

    # --------------------------------------------------------------------------------------------------------- details

    def _verify(self, stage: Stage, reference: Reference) -> Failure | None:
        self.caller.set_state(self._given(reference), self.names)
        try:
            outputs = self.caller.once(self._inputs(reference.arguments))
        except Fault as fault:
            return Failure(stage, fault.reason, fault.message, reference.family, reference.seed)
        return self._compared(stage, reference, outputs)

    def _compared(self, stage: Stage, reference: Reference, outputs: dict[str, torch.Tensor]) -> Failure | None:
        comparison = compare(reference, outputs, self.task.tolerance)
        self.results.append(comparison.result)
        if comparison.mismatch is None:
            return None
        reason = comparison.reason or "wrong_value"
        return Failure(
            stage, reason, describe(comparison.mismatch), reference.family, reference.seed, comparison.mismatch
        )

    def _checked(
        self, base: Reference, arguments: Mapping[str, torch.Tensor], outputs: dict[str, torch.Tensor]
    ) -> Failure | None:
        """Check a timed call: coarsely first, and where that does not do, as in every other stage."""
        expected = evaluate(self.task.graph, arguments, "float64")
        with policy_of_a_gpu(self.task.tolerance):
            eager = evaluate(self.task.graph, arguments, "task")
        due = base.due
        if all(_close(due[name], outputs.get(name), expected[name], eager[name], self.task) for name in expected):
            return None
        failure = self._compared(Stage.TIME, self._refer(NOMINAL, base.seed, arguments), outputs)
        if failure is None:
            return None
        return replace(failure, message=f"In a timed call {failure.message} It was right when it was not timed.")

    def _first(self) -> Reference:
        return self.references.get(NOMINAL, 0)

    def _base(self) -> Reference:
        """What calls in a row start from: the task's own inputs and state, or the state that it can be given."""
        seed = self.references.seed_for(NOMINAL, self.key) if self.mode == "constructed" else 0
        return self._reference(NOMINAL, seed) if seed else self._first()

    def _reference(self, family: str, seed: int) -> Reference:
        """What is due with the parameters that this solution can be given."""
        if self.mode == "given":
            return self.references.get(family, seed)
        arguments = draw_any(self.task, family, seed, self.device)
        own = self._first().arguments
        for spec in self.task.graph.parameters + self.task.graph.buffers:
            if self.mode == "own" or not _constant(own[spec.name]):
                arguments[spec.name] = own[spec.name]
        return self._refer(family, seed, arguments)

    def _refer(self, family: str, seed: int, arguments: Mapping[str, torch.Tensor]) -> Reference:
        return refer(self.task, family, seed, arguments)

    def _state(self, arguments: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        held = self.task.graph.parameters + self.task.graph.buffers + self.task.graph.constants
        return {spec.name: arguments[spec.name] for spec in held}

    def _given(self, reference: Reference) -> dict[str, torch.Tensor]:
        """The parameters and buffers that the solution gets for a reference."""
        if self.mode == "own":
            return {}
        own = self._first().arguments
        return {name: reference.arguments[name] for name in self.names if self.mode == "given" or _constant(own[name])}

    def _inputs(self, arguments: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        return [arguments[spec.name] for spec in self.task.graph.inputs]


def _constant(tensor: torch.Tensor) -> bool:
    """Whether all elements are one value, so that leaving the tensor out may change nothing."""
    return bool(tensor.numel() and (tensor == tensor.reshape(-1)[0]).all())


def _close(due: Due, got: torch.Tensor | None, expected: torch.Tensor, eager: torch.Tensor, task: Task) -> bool:
    """Whether an output is right by the largest unit of the task's own inputs. False decides nothing."""
    if got is None or got.shape != expected.shape or got.dtype != eager.dtype:
        return False
    if due.unit is None or not due.unit.numel():
        return bool((got == expected).all())
    unit = float(due.unit.nan_to_num(0.0, 0.0, 0.0).max())
    limit = limit_for(0.0, task.tolerance) * unit
    return bool(((got.double() - expected).abs() <= limit).all())
