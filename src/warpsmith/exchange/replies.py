"""Writes `verdict.md` and `verdict.json` beside an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warpsmith.errors import SettingsError
from warpsmith.exchange.documents import VERDICT_NAME, VerdictDocument, verdict_document
from warpsmith.exchange.pages import render
from warpsmith.exchange.standing import fastest_programs, times_faster
from warpsmith.files import write_text
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import GpuSpec, Judged, Task
from warpsmith.task import bound

PAGE_NAME = "verdict.md"


class Replies:
    """Says of each answer what came of it, also against its parents, the best of the others, and the bound.

    `history` is all that was judged so far.
    """

    def __init__(self, history: Sequence[Judged], task: Task, gpu: GpuSpec) -> None:
        self._history = history
        self._device = gpu.name
        self._bound = bound(task, gpu)

    def write(self, folder: Path, judged: Judged | None, problem: str) -> None:
        """Write what is known into the folder of the answer. What waits for a judge has no files yet."""
        if judged is None and not problem:
            for name in (PAGE_NAME, VERDICT_NAME):
                _remove(folder / name)
            return
        against = self._against(judged) if judged else {}
        page = render("verdict.md.j2", judged=judged, problem=problem, bound=self._bound, against=against)
        document = VerdictDocument(problem=problem)
        if judged is not None:
            if judged.verdict.timing is not None:
                against["bound"] = self._bound.seconds / judged.verdict.timing.median
            document = verdict_document(judged, JUDGE_VERSION, self._device, against)
        write_text(folder / PAGE_NAME, page)
        write_text(folder / VERDICT_NAME, document.model_dump_json(indent=2) + "\n")

    def _against(self, judged: Judged) -> dict[str, float]:
        """Return how many times as fast it is as its fastest parent, and as the best of all other programs."""
        candidate = judged.candidate
        parents = [each for each in self._history if each.candidate.key in candidate.lineage.parents]
        others = [each for each in self._history if each.candidate.program.key != candidate.program.key]
        found = {}
        for what, group in (("parent", parents), ("best", others)):
            ratio = times_faster(judged, next(iter(fastest_programs(group)), None))
            if ratio is not None:
                found[what] = ratio
        return found


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot be removed: {error.strerror}", file=str(file)) from error
