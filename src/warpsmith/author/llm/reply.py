"""A model's reply into a program, or the exact complaint about it.

What can be forgiven is: other names and other order of the blocks, prose and other blocks around them, a plan or a
device code that is missing where a parent's fits, thoughts in front, Windows line ends, a byte order mark. Nothing of a
reply is ever executed or looked up here; the two texts become data, and what they do is the judge's question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from warpsmith.author.llm.budget import brief
from warpsmith.author.llm.fences import Block, blocks_in
from warpsmith.errors import ProgramError
from warpsmith.judge.screen import screen
from warpsmith.program import parse_plan
from warpsmith.program.build import MAX_SOURCE_LENGTH
from warpsmith.records import Candidate, Failure, GpuSpec, Lineage, Plan, Program, Task

MAX_REPLY = 400_000
"""Characters of a reply; a longer one is not read."""

NOTE = 200
"""Characters of the one line that is kept of a reply's reasoning."""

_CUDA = frozenset({"cuda", "cu", "cuh", "c++", "cpp", "cxx", "cc", "c", "cuda-c++", "cuda-cpp", "kernel.cu"})
_PLAN = frozenset({"toml", "plan", "plan.toml", "ini"})
_FOREIGN = frozenset({"diff", "patch", "python", "py", "bash", "sh", "shell", "console", "json", "yaml"})
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_THOUGHTS = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class Question:
    """What a reply answers: for which task and GPU, and from which programs, the best first.

    `hybrid` says whether the answer may call a library.
    """

    task: Task
    gpu: GpuSpec
    programs: tuple[Program, ...] = ()
    hybrid: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A reply that holds a program: with the default of every tunable, and its reasoning in one line."""

    program: Program
    tunables: tuple[tuple[str, int], ...]
    note: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a reply holds no program, in words for whoever wrote it."""

    text: str


def read_reply(text: str, question: Question, *, cut: bool = False) -> Reading | Complaint:
    """Read a reply. `cut` says that the model was stopped before it had ended."""
    if len(text) > MAX_REPLY:
        return Complaint(f"The reply has {len(text)} characters; {MAX_REPLY} is the limit.")
    text = without_thoughts(_plain(text))
    if not text.strip():
        return Complaint("The reply is empty." + (" It was cut off at the limit of its length." if cut else ""))
    blocks, prose = blocks_in(text, _CUDA | _PLAN)
    plan = _plan(blocks)
    if isinstance(plan, Complaint):
        return plan
    source = _source(blocks, plan, cut)
    if isinstance(source, Complaint):
        return source
    if plan is None and source is None:
        return Complaint("There is neither a ```cuda block nor a ```toml block in the reply." + _hint(text, cut))
    program = _completed(source, plan, question.programs)
    return program if isinstance(program, Complaint) else _screened(program, prose, question)


def clean(text: str) -> str:
    """Return `text` without what cannot be stored as UTF-8 or in a database: lone surrogates and NUL characters."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def without_thoughts(text: str) -> str:
    """Return a reply without what the model thinks aloud before it answers; blocks in there are drafts."""
    opening, closing = _THOUGHTS
    # Some models are given the opening mark, and write only the closing one.
    _, closed, answer = text.rpartition(closing)
    return answer if closed or not text.lstrip().startswith(opening) else ""


def first_sentence(prose: str) -> str:
    """Return the first sentence of a text without its Markdown, at most `NOTE` characters on one line."""
    for line in prose.split("\n"):
        words = brief(re.sub(r"\A[\s#>*\-\d.)]+|[*`]{1,3}", "", line), 4 * NOTE)
        # A heading or a label, such as `Reasoning:`, says nothing.
        if len(words.split()) > 1 and not words.endswith(":") and not line.lstrip().startswith("#"):
            return brief(re.split(r"(?<=[.!?])\s", words, maxsplit=1)[0], NOTE)
    return ""


def _plain(text: str) -> str:
    return clean(text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", ""))


def _plan(blocks: Sequence[Block]) -> Plan | Complaint | None:
    """Return the last plan that can be read; where there is none, what is wrong with the last block that should be."""
    complaint: Complaint | None = None
    for block in reversed(blocks):
        if block.label in _PLAN or (_unnamed(block) and "[[launch]]" in block.text):
            try:
                return parse_plan(block.text)
            except ProgramError as error:
                complaint = complaint or Complaint(f"The plan in the ```toml block cannot be used. {error}")
    return complaint


def _unnamed(block: Block) -> bool:
    return block.label not in _CUDA | _PLAN | _FOREIGN


def _source(blocks: Sequence[Block], plan: Plan | None, cut: bool) -> str | Complaint | None:
    """Return the last block of device code; of several, one that has all kernels of the plan."""
    found = [b for b in blocks if b.label in _CUDA or (_unnamed(b) and "__global__" in b.text)]
    found = [block for block in found if block.text.strip()]
    if not found:
        return None
    fitting = [block for block in found if plan is None or _defines(block.text, plan)]
    if len(found) > 1 and not fitting:
        return Complaint(
            f"There are {len(found)} ```cuda blocks, and none holds all kernels that the plan launches. "
            "Write the complete device code in one block."
        )
    block = (fitting or found)[-1]
    if not block.closed:
        why = "it was cut off at the limit of its length; write a shorter program" if cut else "no fence closes it"
        return Complaint(f"The reply ends inside the ```cuda block: {why}.")
    if len(block.text) > MAX_SOURCE_LENGTH:
        return Complaint(f"The device code has {len(block.text)} characters; {MAX_SOURCE_LENGTH} is the limit.")
    return block.text.strip("\n") + "\n"


def _defines(source: str, plan: Plan) -> bool:
    """Whether a source seems to define every kernel of a plan with as many parameters as the plan gives it.

    It serves to choose between blocks and between plans; whether they fit in truth the judge finds out.
    """
    code = _COMMENT.sub(" ", source)
    for launch in plan.launches:
        lists = re.findall(rf"\b{re.escape(launch.kernel)}\s*\(([^()]*)\)", code)
        if len(launch.args) not in [len(each.split(",")) if each.strip() else 0 for each in lists]:
            return False
    return True


def _completed(source: str | None, plan: Plan | None, parents: Sequence[Program]) -> Program | Complaint:
    """Put device code and plan together. One that is missing is taken from the first parent that it fits."""
    if source is not None and plan is not None:
        return Program(source, plan)
    for parent in parents:
        if source is not None and _defines(source, parent.plan):
            return replace(parent, source=source)
        if plan is not None and _defines(parent.source, plan):
            return replace(parent, plan=plan)
    missing = "```toml block with the plan" if plan is None else "```cuda block with the complete device code"
    return Complaint(f"There is no {missing} in the reply.")


def _screened(program: Program, prose: str, question: Question) -> Reading | Complaint:
    """Bind the plan to the task, as the judge will, so that the model hears at once what does not fit."""
    if any(program.key == known.key for known in question.programs):
        return Complaint("The program is the same as one that was given. Change it.")
    if program.plan.calls and not question.hybrid:
        return Complaint("The plan has a [[call]], but here kernels must do all of the work.")
    tunables = tuple(program.plan.defaults.items())
    candidate = Candidate(question.task.key, program, tunables, Lineage("", ""))
    found = screen(question.task, candidate, question.gpu)
    if isinstance(found, Failure):
        names = ", ".join(spec.name for spec in question.task.graph.arguments + question.task.graph.results)
        return Complaint(f"The plan does not fit the task. {found.message}\nThe tensors of the task are {names}.")
    return Reading(program, tunables, first_sentence(prose))


def _hint(text: str, cut: bool) -> str:
    if cut:
        return " It was cut off at the limit of its length."
    return " The code must stand between fences of three backquotes." if "__global__" in text else ""
