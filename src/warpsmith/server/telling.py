"""Makes what the tools answer with from what the judge and the archive say."""

from __future__ import annotations

from math import isfinite

from warpsmith.exchange.pages import render
from warpsmith.explore.words import share
from warpsmith.program import format_plan
from warpsmith.records import Bound, Candidate, Failure, Graph, Judged, KernelResources, TensorSpec
from warpsmith.server.answers import (
    CandidatePage,
    Element,
    Found,
    Judgement,
    KernelProfile,
    ProfilePage,
    Role,
    Tensor,
)


def judgement_of(judged: Judged, bound: Bound, *, known: bool) -> Judgement:
    """Return what is said of a candidate that was judged."""
    verdict = judged.verdict
    failure, timing, profile = verdict.failure, verdict.timing, verdict.profile
    return Judgement(
        candidate=judged.candidate.key,
        passed=verdict.passed,
        known=known,
        words=render("verdict.md.j2", judged=judged, problem="", bound=bound, against={}),
        device=bound.device,
        stage=verdict.stage.name.lower(),
        reason=failure.reason if failure else None,
        message=failure.message if failure else None,
        line=_line(failure) if failure else None,
        element=_element(failure) if failure else None,
        seconds=timing.median if timing else None,
        source=timing.source if timing else None,
        share_of_bound=share(timing.median, bound) if timing else None,
        bottleneck=profile.bottleneck if profile else None,
        advice=profile.advice if profile else None,
    )


def profile_of(judged: Judged, judgement: Judgement) -> ProfilePage:
    """Return what is known of where the time goes: launch by launch where it was simulated, else kernel by kernel."""
    verdict = judged.verdict
    compiled = {each.name: each for each in verdict.resources}
    launches = [
        KernelProfile(
            kernel=each.kernel,
            grid=list(each.grid),
            block=list(each.block),
            thread_instructions=each.thread_instructions,
            global_load_sectors=each.global_load_sectors,
            global_store_sectors=each.global_store_sectors,
            shared_wavefronts=each.shared_wavefronts,
            divergent_branches=each.divergent_branches,
        )
        for each in verdict.counters
    ]
    profiles = launches or [KernelProfile(kernel=name) for name in compiled]
    # JSON has no infinity.
    metrics = {name: each for name, each in verdict.profile.metrics if isfinite(each)} if verdict.profile else {}
    return ProfilePage(
        judgement=judgement,
        metrics=metrics,
        kernels=[_with_resources(each, compiled.get(each.kernel)) for each in profiles],
    )


def _with_resources(profile: KernelProfile, resources: KernelResources | None) -> KernelProfile:
    if resources is None:
        return profile
    return profile.model_copy(
        update={
            "registers": resources.registers,
            "spilled_bytes": resources.spill_stores + resources.spill_loads,
            "static_shared_bytes": resources.shared,
        }
    )


def found_of(judged: Judged, task_name: str) -> Found:
    """Return a candidate that passed as something found."""
    timing, candidate = judged.verdict.timing, judged.candidate
    assert timing is not None
    return Found(
        candidate=candidate.key,
        task=candidate.task_key,
        task_name=task_name,
        device=timing.device,
        seconds=timing.median,
        source=timing.source,
        author=candidate.lineage.author,
        note=candidate.lineage.note,
    )


def candidate_page(candidate: Candidate, judgement: Judgement | None) -> CandidatePage:
    """Return a candidate with all that may be read of it."""
    lineage = candidate.lineage
    return CandidatePage(
        candidate=candidate.key,
        task=candidate.task_key,
        kernel_cu=candidate.program.source,
        plan_toml=format_plan(candidate.program.plan),
        tunables=dict(candidate.tunables),
        author=lineage.author,
        operator=lineage.operator,
        parents=list(lineage.parents),
        generation=lineage.generation,
        note=lineage.note,
        judgement=judgement,
    )


def _groups_of(graph: Graph) -> tuple[tuple[Role, tuple[TensorSpec, ...]], ...]:
    """Return the tensors of a graph by what they are."""
    return (
        ("input", graph.inputs),
        ("parameter", graph.parameters),
        ("buffer", graph.buffers),
        ("constant", graph.constants),
        ("output", graph.results),
    )


def tensors_of(graph: Graph) -> list[Tensor]:
    """Return the tensors of a graph."""
    return [
        Tensor(name=spec.name, role=role, shape=list(spec.shape), dtype=spec.dtype)
        for role, specs in _groups_of(graph)
        for spec in specs
    ]


def _line(failure: Failure) -> int | None:
    """The first line of kernel.cu that a failure names."""
    lines = [failure.finding.line] if failure.finding else []
    lines += [each.line for each in failure.diagnostics if each.severity == "error"]
    return next((line for line in lines if line), None)


def _element(failure: Failure) -> Element | None:
    mismatch = failure.mismatch
    if mismatch is None:
        return None
    return Element(
        output=mismatch.output,
        index=list(mismatch.index),
        expected=_number(mismatch.expected),
        got=_number(mismatch.got),
        wrong=mismatch.wrong,
        total=mismatch.total,
    )


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they go as words."""
    return value if isfinite(value) else str(value)
