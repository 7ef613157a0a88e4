"""One candidate before the judge: calls of its program, and what each call must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from warpsmith.device.protocol import Device
from warpsmith.judge.blockwise import Blocks, compare_blocks
from warpsmith.judge.numerics import Comparison, compare
from warpsmith.judge.references import Reference, References
from warpsmith.records import (
    BoundPlan,
    Build,
    Candidate,
    Counters,
    Execution,
    Failure,
    FamilyResult,
    Finding,
    Mismatch,
    Profile,
    Stage,
    Task,
    Timing,
)


@dataclass(eq=False)
class Trial:
    """What is known of a candidate so far. The judge's stages fill it in from top to bottom."""

    task: Task
    candidate: Candidate
    device: Device
    references: References
    budget: int
    blocks: Blocks | None = None
    plan: BoundPlan = field(default_factory=lambda: BoundPlan((), ()))
    build: Build | None = None
    first: Execution | None = None
    families: list[FamilyResult] = field(default_factory=list)
    counters: tuple[Counters, ...] = ()
    timing: Timing | None = None
    profile: Profile | None = None
    sanitized: str = ""
    spans: tuple[float, ...] = ()
    library_share: float | None = None

    @property
    def built(self) -> Build:
        """The build. Raises RuntimeError before the build stage has passed."""
        if self.build is None:
            raise RuntimeError("the build stage has not passed")
        return self.build

    def call(self, reference: Reference, *, fill: int, sanitize: bool = False, count: bool = False) -> Execution:
        """Call the program once on the inputs of a reference."""
        return self.device.run(
            self.built,
            self.plan,
            reference.arguments,
            self.task.graph.results,
            fill=fill,
            sanitize=sanitize,
            count=count,
            budget=self.budget,
        )

    def verify(self, stage: Stage, reference: Reference, *, fill: int) -> Failure | None:
        """Call the program on the inputs of a reference; check its conduct and every element of its outputs."""
        return self.examine(stage, reference, self.call(reference, fill=fill), fill=fill)

    def examine(self, stage: Stage, reference: Reference, execution: Execution, *, fill: int) -> Failure | None:
        """Check the conduct and the outputs of a call made with `fill`, and record how its family went."""
        failure = conduct(execution, stage, reference)
        if failure is not None:
            return failure
        comparison = self._compare(reference, execution)
        self.families.append(comparison.result)
        if comparison.mismatch is None:
            return None
        return self._explain(stage, reference, comparison, execution, fill)

    def _compare(self, reference: Reference, execution: Execution) -> Comparison:
        if self.blocks is None:
            return compare(reference, execution.outputs, self.task.tolerance)
        return compare_blocks(self.blocks, reference.family, reference.seed, reference.arguments, execution.outputs)

    def _explain(
        self, stage: Stage, reference: Reference, comparison: Comparison, execution: Execution, fill: int
    ) -> Failure:
        """Say why an element is wrong: where another fill changes it, the program never wrote it."""
        mismatch, reason = comparison.mismatch, comparison.reason or "wrong_value"
        assert mismatch is not None
        text = describe(mismatch)
        if mismatch.index or mismatch.total == 1:
            again = self.call(reference, fill=fill + 1)
            name = mismatch.output
            if name in again.outputs and _differ(execution.outputs[name], again.outputs[name], mismatch.index):
                reason = "unwritten"
                text += " It changes with what stood in memory before the call, so the program never wrote it"
                text += " or computed it from memory that it never wrote."
        return Failure(stage, reason, text, reference.family, reference.seed, mismatch)


def conduct(execution: Execution, stage: Stage, reference: Reference) -> Failure | None:
    """Return what is wrong with how a call behaved, whatever it computed."""
    family, seed = reference.family, reference.seed
    if execution.findings:
        finding = execution.findings[0]
        return Failure(stage, finding.kind, locate(finding), family, seed, finding=finding)
    if execution.overwritten:
        message = f"The program wrote to its input: {', '.join(execution.overwritten)}."
        return Failure(stage, "input_overwritten", message, family, seed)
    if execution.trampled:
        message = f"The program wrote outside the bounds of: {', '.join(execution.trampled)}."
        return Failure(stage, "out_of_bounds", message, family, seed)
    if execution.kept:
        message = (
            f"The program keeps something from one call to the next: it leaves {', '.join(execution.kept)} changed. "
            "Nothing but a module's variables outlives a call, so results could be kept there; use a scratch buffer."
        )
        return Failure(stage, "kept_state", message, family, seed)
    return None


def locate(finding: Finding) -> str:
    """Say a finding in one sentence with its kernel, source line, block and thread."""
    where = f"kernel {finding.kernel}, line {finding.line}" if finding.line else f"kernel {finding.kernel}"
    return f"{finding.message} ({where}, block {finding.block}, thread {finding.thread})"


def describe(mismatch: Mismatch) -> str:
    """Say a mismatch in one sentence."""
    index = ", ".join(map(str, mismatch.index))
    share = f"{mismatch.wrong} of {mismatch.total} elements are wrong"
    return f"{mismatch.output}[{index}] is {mismatch.got:.9g} and should be {mismatch.expected:.9g}; {share}."


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors of one dtype hold the same bytes."""
    return left.shape == right.shape and torch.equal(as_bytes(left), as_bytes(right))


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor, flat."""
    return tensor.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


def _differ(left: torch.Tensor, right: torch.Tensor, index: Sequence[int]) -> bool:
    return not same_bits(left[tuple(index)].reshape(1), right[tuple(index)].reshape(1))
