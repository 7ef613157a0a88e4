"""A small task with its judge, recorded replies, and questions about it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import anyio

from tests.judge.bench import judge_for
from tests.judge.kernels import SOFTMAX, candidate_of, task_of
from warpsmith.author import Context, Proposal, Refusal
from warpsmith.author.llm import Limits, LlmAuthor
from warpsmith.author.llm.reply import Question, Reading, read_reply
from warpsmith.device.catalog import gpu
from warpsmith.records import Candidate, Judged, Lineage, Program, Verdict
from warpsmith.task import bound

GPU = gpu("H100")
TASK = task_of(SOFTMAX)
BOUND = bound(TASK, GPU)
QUICK = Limits(timeout_s=5.0, attempts=2, requests_per_minute=1e9, backoff_s=0.0, rest_s=30.0)
"""For tests in which a model answers or fails at once."""

FOLDER = Path(__file__).parent / "replies"


def reply(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def question(*programs: Program, hybrid: bool = False) -> Question:
    return Question(TASK, GPU, programs, hybrid)


@cache
def program(name: str) -> Program:
    """The program of a recorded reply."""
    reading = read_reply(reply(name), question())
    assert isinstance(reading, Reading), reading
    return reading.program


@cache
def judged(name: str) -> Judged:
    """The program of a recorded reply, and what the judge says of it."""
    return judge(program(name))


def judge(each: Program) -> Judged:
    candidate = Candidate(TASK.key, each, tuple(each.plan.defaults.items()), Lineage("llm:fake:model", "translate"))
    return Judged(candidate, judge_for(TASK).judge(candidate))


@cache
def known() -> Judged:
    """A program for the task by another author, slower than the recorded ones."""
    candidate = candidate_of(SOFTMAX)
    return Judged(candidate, judge_for(TASK).judge(candidate))


def context(operator: str = "translate", *parents: Judged, seed: int = 0, best: Judged | None = None) -> Context:
    return Context(TASK, GPU, operator, parents, seed, bound=BOUND, best=best)


def with_source(each: Judged, source: str) -> Judged:
    """The same verdict on another source."""
    changed = replace(each.candidate, program=replace(each.candidate.program, source=source))
    return Judged(changed, replace(each.verdict, candidate_key=changed.key))


def propose(author: LlmAuthor, asked: Context) -> Proposal | Refusal | None:
    return anyio.run(author.propose, asked)


def verdict_on(answer: Proposal | Refusal | None) -> Verdict:
    assert isinstance(answer, Proposal), answer
    candidate = Candidate(TASK.key, answer.program, answer.tunables, Lineage("llm:fake:model", "translate"))
    return judge_for(TASK).judge(candidate)
