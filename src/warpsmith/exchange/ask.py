"""`ask`: write down what a generation needs, so that whoever can may answer, with nothing but files.

folder/
├── README.md  program.md  task.md  standing.md
├── 01-rewrite/   question.md  question.json  parent-1/kernel.cu  parent-1/plan.toml
└── 02-cross/     ...
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from warpsmith.archive import Archive
from warpsmith.archive.progress import latest_generation
from warpsmith.author.agent.words import program_format
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.author.protocol import Context, Proposal
from warpsmith.device.choose import choose
from warpsmith.errors import SettingsError, UnsupportedOperator
from warpsmith.exchange.documents import MAX_NAME, QUESTION_NAME, QuestionDocument
from warpsmith.exchange.pages import render, task_page
from warpsmith.exchange.questions import Question, choose_questions
from warpsmith.exchange.similar import Similar, similar_programs
from warpsmith.exchange.standing import TaskStanding, history_of, render_standing, standing_of
from warpsmith.files import write_text
from warpsmith.pipeline import run_to_end
from warpsmith.program import write_program
from warpsmith.records import Candidate, GpuSpec, Lineage, Task
from warpsmith.settings import Settings
from warpsmith.task import load_task
from warpsmith.task.sourcefile import split

ASKED = "asked"
"""The event that says what a run asked: `{"target": path, "operators": [...]}`."""
STANDING_NAME = "standing.md"
MAX_SLOTS = 1000

_START = "create"
"""The built-in author's operator that needs no parents; with seed 0 it answers with its defaults."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked: the task, the number of the generation, and the operator of every slot in order."""

    folder: Path
    task_key: str
    generation: int
    operators: tuple[str, ...]


def ask(
    task_target: str | Path, folder: str | Path, settings: Settings, *, slots: int = 4, author: str = "agent"
) -> Asked:
    """Write a generation folder with `slots` questions about a task, to be answered in the name of `author`.

    The same archive, task and seed give the same questions. The folder is complete or not there. Raises SettingsError
    where it holds something already or cannot be written, TaskError where the task cannot be used.
    """
    folder = Path(folder)
    if not 1 <= slots <= MAX_SLOTS:
        raise SettingsError(f"a generation has 1 to {MAX_SLOTS} questions, not {slots}")
    if not (author.strip() and author.isprintable() and len(author) <= MAX_NAME):
        raise SettingsError(f"an author has a name of 1 to {MAX_NAME} printable characters, not {author!r}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SettingsError("holds something already: tell its answers, or name another folder", file=str(folder))
    choice = choose(settings.device, simulate=settings.simulate)
    task = load_task(task_target, alone=choice.exclusive)
    with Archive.open(settings.archive) as archive:
        archive.add_task(task)
        standing = standing_of(archive, task.key, choice.spec, hybrid=settings.hybrid)
        history = history_of(archive, task.key, choice.spec, hybrid=settings.hybrid)
        generation = latest_generation(archive, task.key) + 1
        start = None if standing.passed else _start(task, choice.spec, hybrid=settings.hybrid)
        if start is not None and start.key in {judged.candidate.key for judged in history}:
            start = None
        similar = similar_programs(archive, task, choice.spec, hybrid=settings.hybrid)
        chance = random.Random(f"{task.key}:{generation}:{settings.seed}")
        questions = choose_questions(history, slots, chance, start)
        run = archive.start_run(task, settings.to_json())
        operators = tuple(question.operator for question in questions)
        archive.add_event(run, ASKED, {"target": _absolute(str(task_target)), "operators": list(operators)})
        if start is not None:
            archive.add_candidate(run, start)
    documents = [
        QuestionDocument(
            task_key=task.key,
            run=run,
            generation=generation,
            author=author,
            operator=question.operator,
            parents=list(question.parent_keys),
        )
        for question in questions
    ]
    content = _Content(
        task=task,
        gpu=choice.spec,
        standing=standing,
        similar=similar,
        questions=questions,
        documents=tuple(documents),
        hybrid=settings.hybrid,
        simulated=not choice.measures,
        file=Path(str(task_target)).name,
    )
    _write(folder, content)
    return Asked(folder, task.key, generation, operators)


def _start(task: Task, gpu: GpuSpec, *, hybrid: bool) -> Candidate | None:
    """Return what the built-in author writes first; None where it cannot write anything for this task."""
    context = Context(task, gpu, _START, (), 0)
    author = BuiltinAuthor(hybrid=hybrid)
    try:
        answer = run_to_end(author.propose, context)
    except UnsupportedOperator:
        return None
    if not isinstance(answer, Proposal):
        return None
    lineage = Lineage(author.name, _START, recipe=answer.recipe, note=answer.note)
    return Candidate(task.key, answer.program, answer.tunables, lineage)


@dataclass(frozen=True, eq=False)
class _Content:
    """All that stands in a generation folder. `file` is the name of the module's file, without its place."""

    task: Task
    gpu: GpuSpec
    standing: TaskStanding
    similar: tuple[Similar, ...]
    questions: tuple[Question, ...]
    documents: tuple[QuestionDocument, ...]
    hybrid: bool
    simulated: bool
    file: str


def _write(folder: Path, content: _Content) -> None:
    """Write everything elsewhere, and move it into place."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            staged = Path(name) / "generation"
            staged.mkdir()
            _write_pages(staged, content)
            for number, (question, document) in enumerate(zip(content.questions, content.documents, strict=True), 1):
                slot = staged / f"{number:02d}-{question.operator}"
                slot.mkdir()
                for place, candidate in enumerate(question.programs, 1):
                    write_program(slot / f"parent-{place}", candidate.program)
                standing = content.standing
                words = render(
                    "question.md.j2", number=number, question=question, bound=standing.bound, best=standing.best
                )
                write_text(slot / "question.md", words)
                write_text(slot / QUESTION_NAME, document.model_dump_json(indent=2) + "\n")
            staged.rename(folder)
    except OSError as error:
        raise SettingsError(f"cannot be written: {error.strerror}", file=str(folder)) from error


def _write_pages(folder: Path, content: _Content) -> None:
    """Write what all questions have in common."""
    readme = render(
        "README.md.j2",
        task=content.task,
        generation=content.documents[0].generation,
        similar=content.similar,
        file=content.file,
        simulated=content.simulated,
        first=content.questions[0].operator,
    )
    write_text(folder / "README.md", readme)
    write_text(folder / "program.md", program_format(hybrid=content.hybrid))
    task, bound = content.task, content.standing.bound
    write_text(folder / "task.md", task_page(task, content.gpu, bound))
    write_text(folder / STANDING_NAME, render_standing(content.standing))
    if content.similar:
        write_text(folder / "similar.md", render("similar.md.j2", similar=content.similar))
    for place, each in enumerate(content.similar, 1):
        write_program(folder / "similar" / str(place), each.candidate.program)


def _absolute(target: str) -> str:
    """Return "file.py" or "file.py:Class" with the whole path of the file."""
    file, class_name = split(target)
    whole = str(Path(file).resolve())
    return whole if class_name is None else f"{whole}:{class_name}"
