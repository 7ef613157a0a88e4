"""Drive tasks through `ask` and `tell` with prepared answers, generation by generation, beside the built-in author.

    python tools/gpu/drive_agents.py OUT --generation 1         # ask; let the built-in author search; tell; tune
    python tools/gpu/drive_agents.py OUT --generation 2         # ask; tell; tune
    python tools/gpu/drive_agents.py OUT --compare              # on a GPU: confirm the best, time PyTorch's own

Answers stand in `examples/agents/answers/TASK/GENERATION/OPERATOR`, with a number behind the operator where there are
several. They are put beside a question that asks for that operator, or else beside the first. Answers of a generation
may be written when the verdicts of the one before are there: `OUT/questions/TASK/GENERATION/` has the questions.

Whatever was done is not done again, so an interrupted call is simply repeated, and answers that were added since are
judged. Everything is in `OUT/archive.db`; `OUT/table.md` and `OUT/reports/` are written anew by every call. With
`--simulate`, `--small` makes copies of the tasks with the sizes that their comments name.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents_table import Row, render, row_of

from warpsmith import optimize
from warpsmith.archive import Archive
from warpsmith.bench.compare import against_module
from warpsmith.device.choose import choose
from warpsmith.errors import NothingPassed, UnsupportedOperator
from warpsmith.evolve import Observer
from warpsmith.evolve.events import BestImproved, CandidateJudged
from warpsmith.exchange import ask, render_told, tell
from warpsmith.exchange.answers import answers_in, slots_in
from warpsmith.exchange.documents import QUESTION_NAME, read_question
from warpsmith.exchange.standing import history_of
from warpsmith.explore import Outcome, folder_for, outcome_from_archive, write_results
from warpsmith.explore.words import duration
from warpsmith.records import GpuSpec
from warpsmith.settings import Settings, load_settings

EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"
COMPARED = ("eager", "compile")
SEARCHED = "searched.json"
"""Which tasks the built-in author has searched, in the folder of the drive."""


@dataclass(frozen=True)
class Drive:
    """Where everything lies, and how much of it is to be done."""

    out: Path
    answers: Path
    author: str
    slots: int
    budget: float
    tuning: float
    settings: Settings

    def questions(self, task: Path, generation: int) -> Path:
        """The folder of questions of one generation."""
        return self.out / "questions" / task.stem / str(generation)


def small_copy(file: Path, folder: Path) -> Path:
    """Copy a task with the sizes that its comments `# Small: NAMES = NUMBERS` name, and return the copy."""
    text = file.read_text(encoding="utf-8")
    small = re.findall(r"^# Small: ([\w, ]+) = (.+)$", text, re.MULTILINE)
    if not small:
        raise SystemExit(f"{file}: names no small sizes")
    for names, numbers in small:
        text = re.sub(rf"^{names} = .+$", f"{names} = {numbers}", text, flags=re.MULTILINE)
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / file.name
    copy.write_text(text, encoding="utf-8")
    return copy


def place(prepared: Path, questions: Path) -> int:
    """Put prepared answers beside the questions that they fit; return how many were not there yet."""
    slots = slots_in(questions)
    there = {_content(answer) for slot in slots for answer in answers_in(slot)}
    new = [folder for folder in sorted(prepared.glob("*/")) if _content(folder) not in there]
    for folder in new:
        fitting = [slot for slot in slots if slot.name.partition("-")[2] == folder.name.partition("-")[0]]
        slot = min(fitting or slots[:1], key=lambda slot: len(answers_in(slot)))
        number = len(answers_in(slot)) + 1
        shutil.copytree(folder, slot / ("answer" if number == 1 else f"answer-{number}"))
    return len(new)


def _content(folder: Path) -> tuple[str, ...]:
    files = (folder / name for name in ("kernel.cu", "plan.toml", "tunables.toml"))
    return tuple(file.read_text(encoding="utf-8") if file.exists() else "" for file in files)


def live(drive: Drive, file: Path, generation: int) -> None:
    """One generation of one task: ask, let the built-in author search in the first, tell, and search for tunables."""
    questions = drive.questions(file, generation)
    if not questions.exists():
        asked = ask(file, questions, drive.settings, slots=drive.slots, author=drive.author)
        print(f"{file.stem}: asked for {', '.join(asked.operators)}")
    if generation == 1:
        search(drive, file)
    new = place(drive.answers / file.stem / str(generation), questions)
    if not any(answers_in(slot) for slot in slots_in(questions)):
        print(f"{file.stem}: no answers yet; the questions are in {questions}")
        return
    told = tell(questions, drive.settings)
    print(f"{file.stem}: {new} answers placed\n{render_told(told)}")
    if drive.tuning and told.judged:
        _search(drive, file, drive.tuning, [])


def search(drive: Drive, file: Path) -> None:
    """Let the built-in author search, once for each task."""
    record = drive.out / SEARCHED
    done: list[str] = json.loads(record.read_text()) if record.exists() else []
    if file.stem not in done:
        _search(drive, file, drive.budget, None)
        record.write_text(json.dumps([*done, file.stem]))


def _search(drive: Drive, file: Path, seconds: float, authors: Sequence[object] | None) -> None:
    """Search; without authors only for tunables of the programs that there are."""
    try:
        optimize(file, settings=drive.settings, budget=seconds, authors=authors, observer=_watch(file.stem))
    except (NothingPassed, UnsupportedOperator) as error:
        print(f"{file.stem}: {error}")


def _watch(name: str) -> Observer:
    """Print each new best of a search, and none that was known before."""
    known: set[str] = set()

    def hear(event: object) -> None:
        if isinstance(event, CandidateJudged) and event.cached:
            known.add(event.judged.candidate.key)
        elif isinstance(event, BestImproved) and event.judged.candidate.key not in known:
            lineage = event.judged.candidate.lineage
            print(f"{name}: {duration(event.judged.seconds)} by {lineage.author}, {lineage.operator}", flush=True)

    return hear


def compare(drive: Drive, file: Path) -> None:
    """Judge the best thoroughly, and time the module itself beside it."""
    settings = drive.settings.model_copy(update={"confirm": True})
    result = optimize(file, settings=settings, budget=1.0, authors=[])
    baselines, comparisons = against_module(result, settings, COMPARED)
    found = {
        "candidate": result.best.candidate.key,
        "baselines": {each.name: each.timing.median for each in baselines if each.timing},
        "problems": {each.name: each.problem for each in baselines if each.problem},
        "comparisons": {each.baseline: [each.ratio, *each.interval] for each in comparisons},
    }
    target = drive.out / "baselines" / f"{file.stem}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{file.stem}: {found['baselines'] or 'estimates are not compared with PyTorch'}")


def report(drive: Drive) -> str:
    """Write a report for every task of the archive, and the table; return the table."""
    choice = choose(drive.settings.device, simulate=drive.settings.simulate)
    rows = []
    with Archive.open(drive.settings.archive, create=False) as archive:
        for known in sorted(archive.tasks(), key=lambda known: known.name):
            outcome = outcome_from_archive(archive, known.key, choice.spec)
            write_results(outcome, folder_for(drive.out / "reports", known.task))
            rows.append(_row(drive, outcome, archive, choice.spec))
    table = render(rows, f"{'measured on' if choice.measures else 'estimated for'} {choice.spec.name}")
    (drive.out / "table.md").write_text(table, encoding="utf-8")
    return table


def _row(drive: Drive, outcome: Outcome, archive: Archive, gpu: GpuSpec) -> Row:
    name = outcome.task.name
    generations = {
        int(folder.name): read_question(slots_in(folder)[0] / QUESTION_NAME).generation
        for folder in (drive.out / "questions" / name).glob("*/")
    }
    timed = drive.out / "baselines" / f"{name}.json"
    baselines: Mapping[str, float] = json.loads(timed.read_text())["baselines"] if timed.exists() else {}
    history = history_of(archive, outcome.task.key, gpu, hybrid=drive.settings.hybrid)
    return row_of(name, outcome.bound, history, drive.author, generations, baselines)


def main() -> None:
    """Do one generation of all tasks that are named, or the comparison, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the drive")
    parser.add_argument("--generation", type=int, help="which generation to ask and tell, from 1 on")
    parser.add_argument("--compare", action="store_true", help="confirm the best, and time PyTorch's own")
    parser.add_argument("--task", action="append", help="only this task, by the name of its file; may be repeated")
    parser.add_argument("--tasks", type=Path, default=EXAMPLES, help="folder with the tasks")
    parser.add_argument("--answers", type=Path, default=EXAMPLES / "answers", help="folder with the answers")
    parser.add_argument("--author", default="agent", help="in whose name they are told")
    parser.add_argument("--slots", type=int, default=4, help="questions in a generation")
    parser.add_argument("--budget", type=float, default=25.0, help="seconds of the built-in author for each task")
    parser.add_argument("--tuning", type=float, default=12.0, help="seconds for tunables after each tell; 0: none")
    parser.add_argument("--workers", type=int, help="judging processes")
    parser.add_argument("--simulate", action="store_true", help="estimate, even where there is a GPU")
    parser.add_argument("--small", action="store_true", help="copies of the tasks with small sizes")
    given = parser.parse_args()
    files = sorted(file for file in given.tasks.glob("*.py") if not given.task or file.stem in given.task)
    if not files:
        parser.error(f"no such tasks in {given.tasks}")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.small:
        files = [small_copy(file, given.out / "tasks") for file in files]
    settings = load_settings(
        archive=str(given.out / "archive.db"),
        cache=given.out / "cache",
        simulate=given.simulate,
        workers=given.workers,
        confirm=False,
    )
    drive = Drive(given.out, given.answers, given.author, given.slots, given.budget, given.tuning, settings)
    for file in files:
        if given.generation is not None:
            live(drive, file, given.generation)
        if given.compare:
            compare(drive, file)
    print(report(drive))


if __name__ == "__main__":
    main()
