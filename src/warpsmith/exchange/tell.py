"""`tell`: take in what was answered to the questions of a generation folder, judge it, and say what came of it.

Every answer that can be read is in the archive before anything is judged, and every verdict the moment it is there.
So whatever interrupts this, the next call goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warpsmith.archive import Archive
from warpsmith.archive.progress import proposals_of
from warpsmith.device.choose import choose
from warpsmith.errors import ArchiveError, TaskError, UserError
from warpsmith.exchange.answers import answers_in, read_answer, slots_in
from warpsmith.exchange.ask import ASKED, STANDING_NAME
from warpsmith.exchange.documents import QUESTION_NAME, QuestionDocument, read_question
from warpsmith.exchange.judging import Watch, judge_candidates, unwatched
from warpsmith.exchange.replies import Replies
from warpsmith.exchange.standing import TaskStanding, history_of, render_standing, standing_of
from warpsmith.files import write_text
from warpsmith.judge import JUDGE_VERSION
from warpsmith.pipeline import MakeExecutor, local_executor
from warpsmith.records import Candidate, Judged
from warpsmith.settings import Settings
from warpsmith.task import load_task


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in `folder`, or a question there that cannot be read.

    `problem` says why it is no candidate, or why the judge could not be asked. `judged` is None also where it waits.
    """

    folder: Path
    candidate: Candidate | None = None
    judged: Judged | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a generation: every answer in order, how many of them were new, and how many verdicts are new."""

    standing: TaskStanding
    answers: tuple[Answer, ...]
    proposed: int
    judged: int

    @property
    def problems(self) -> tuple[str, ...]:
        """Whatever could not be read or judged, a line each."""
        return tuple(answer.problem for answer in self.answers if answer.problem)


def tell(
    folder: str | Path,
    settings: Settings,
    *,
    judge: bool = True,
    task_target: str | Path | None = None,
    watch: Watch = unwatched,
    make_executor: MakeExecutor = local_executor,
) -> Told:
    """Read all answers in a generation folder, archive them, judge them, and write what came of each beside it.

    A malformed answer is reported, and the others go on. What was told before is not judged again. Without `judge`
    candidates wait in the archive for a judge elsewhere, and only verdicts that are known are written. The task's file
    is the one that was asked about, or `task_target` where that lies elsewhere now: nothing that the folder names is
    run. Raises UserError where it is no generation folder or was asked on another archive.
    """
    folder = Path(folder)
    slots = slots_in(folder)
    questions, answers = _questions(folder, slots)
    asked = _one(folder, list(questions.values()))
    choice = choose(settings.device, simulate=settings.simulate)
    with Archive.open(settings.archive, create=False) as archive:
        target = _target(archive, asked) if task_target is None else str(task_target)
        task = load_task(target, alone=choice.exclusive)
        if task.key != asked.task_key:
            raise TaskError(f"is task {task.key} now; the questions are about {asked.task_key}", file=target)
        parents, problems = _parents(archive, folder, questions)
        for slot, question in questions.items():
            answers += _answers(slot, folder, question, problems.get(slot, ""), hybrid=settings.hybrid)
        proposed = _propose(archive, asked.run, [each.candidate for each in answers if each.candidate])
        judged = 0
        lost: dict[str, str] = {}
        try:
            if judge:
                new = [answer.candidate for answer in answers if answer.candidate]
                # An answer is compared with its parents, so a starting program that nobody judged yet goes first.
                needed = [parent for parent in parents if any(parent.key in each.lineage.parents for each in new)]
                done = judge_candidates(task, [*needed, *new], settings, choice, archive, watch, make_executor)
                judged, lost = done.judged, dict(done.lost)
        finally:
            answers = [_finished(archive, each, choice.spec.name, lost) for each in answers]
            replies = Replies(history_of(archive, task.key, choice.spec, hybrid=settings.hybrid), task, choice.spec)
            for each in answers:
                if each.folder.parent in questions:
                    replies.write(each.folder, each.judged, each.problem)
            standing = standing_of(archive, task.key, choice.spec, hybrid=settings.hybrid)
            write_text(folder / STANDING_NAME, render_standing(standing))
    return Told(standing, tuple(answers), proposed, judged)


def _questions(folder: Path, slots: Sequence[Path]) -> tuple[dict[Path, QuestionDocument], list[Answer]]:
    """Read the questions; one that cannot be read is told of in place of its answers."""
    questions: dict[Path, QuestionDocument] = {}
    broken: list[Answer] = []
    for slot in slots:
        try:
            questions[slot] = read_question(slot / QUESTION_NAME)
        except UserError as error:
            broken.append(Answer(slot, problem=_complaint(error, folder)))
    if not questions:
        raise UserError(broken[0].problem, file=str(folder))
    return questions, broken


def _one(folder: Path, questions: Sequence[QuestionDocument]) -> QuestionDocument:
    """Return a question that stands for all: they are of one task and one run."""
    if len({(question.task_key, question.run) for question in questions}) > 1:
        raise UserError("holds questions of several generations; keep each in a folder of its own", file=str(folder))
    return questions[0]


def _target(archive: Archive, asked: QuestionDocument) -> str:
    """Return the task's file as it was named when the questions were asked, as the archive remembers it."""
    said = [event for event in archive.events(asked.run) if event.kind == ASKED]
    if not said or archive.run(asked.run).task_key != asked.task_key:
        raise ArchiveError(
            f"run {asked.run} of this archive did not ask about task {asked.task_key}: use the one that did"
        )
    return str(said[0].data["target"])


def _parents(
    archive: Archive, folder: Path, questions: Mapping[Path, QuestionDocument]
) -> tuple[list[Candidate], dict[Path, str]]:
    """Return all parents, and for each question whose parents are none what is wrong with them."""
    parents: dict[str, Candidate] = {}
    problems: dict[Path, str] = {}
    for slot, question in questions.items():
        for key in question.parents:
            try:
                parent = archive.candidate(key)
                if parent.task_key != question.task_key:
                    raise ArchiveError(f"candidate {key} is for another task")
            except ArchiveError as error:
                problems[slot] = _complaint(UserError(f"parents: {error}", file=str(slot / QUESTION_NAME)), folder)
            else:
                parents[key] = parent
    return list(parents.values()), problems


def _answers(slot: Path, folder: Path, question: QuestionDocument, problem: str, *, hybrid: bool) -> list[Answer]:
    """Read the answers to a question; whatever cannot be used has a problem. `problem` is one of the question's own."""
    try:
        places = answers_in(slot)
    except UserError as error:
        return [Answer(slot, problem=_complaint(error, folder))]
    if problem:
        return [Answer(place, problem=problem) for place in places]
    answers = []
    for place in places:
        try:
            answers.append(Answer(place, candidate=read_answer(place, question, hybrid=hybrid)))
        except UserError as error:
            answers.append(Answer(place, problem=_complaint(error, folder)))
    return answers


def _complaint(error: UserError, folder: Path) -> str:
    """Say what is wrong and where, by the place in the generation folder: authors read it on other machines."""
    file = Path(error.file) if error.file else None
    if file is not None and file.is_relative_to(folder):
        return str(UserError(error.message, file=str(file.relative_to(folder)), line=error.line))
    return str(error)


def _propose(archive: Archive, run: int, candidates: Sequence[Candidate]) -> int:
    """Archive what was not told before; return how much that is."""
    known = set(proposals_of(archive, run))
    before = len(known)
    for candidate in candidates:
        if (candidate.key, candidate.lineage) not in known:
            archive.add_candidate(run, candidate)
            known.add((candidate.key, candidate.lineage))
    return len(known) - before


def _finished(archive: Archive, answer: Answer, device: str, lost: Mapping[str, str]) -> Answer:
    """Return an answer with what the archive knows of it by now."""
    candidate = answer.candidate
    if candidate is None:
        return answer
    verdict = archive.verdict(candidate.key, JUDGE_VERSION, device)
    if verdict is not None:
        return Answer(answer.folder, candidate, Judged(candidate, verdict))
    if candidate.key in lost:
        return Answer(
            answer.folder, candidate, problem=f"{_shown(answer.folder)}: could not be judged: {lost[candidate.key]}"
        )
    return answer


def _shown(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"
