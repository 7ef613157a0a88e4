"""A language model as the only author of a whole search: its programs are judged, bred and archived with their cost."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from tests.author.llm.kit import BOUND, GPU, QUICK, TASK, reply
from tests.judge.bench import judge_for
from warpsmith.archive import Archive
from warpsmith.author.llm import FakeModel, LlmAuthor
from warpsmith.evolve import Evolution, Problem
from warpsmith.evolve.dial import Dial
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import Candidate, Verdict

DIAL = Dial(size=4, capacity=8, depth=1, patience=20, candidates=12)


class Bench:
    """Judges where it stands."""

    async def judge(self, candidate: Candidate) -> Verdict:
        return judge_for(TASK).judge(candidate)

    def close(self) -> None:
        pass


class Writer:
    """Writes the softmax again and again, each time a little other; every third program is wrong."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, prompt: str) -> str:
        self.count += 1
        # A loop that adds nothing makes programs differ in more than their comments.
        filler = "\n".join(f"  most = fmaxf(most, -{k}.0e38f);" for k in range(1, self.count + 1))
        name = "wrong_value" if self.count % 3 == 0 else "plain"
        return reply(name).replace("  float sum = 0.0f;", f"{filler}\n  float sum = 0.0f;")


@pytest.mark.timeout(300)
def test_a_search_with_nothing_but_a_model_finds_and_keeps_its_programs(tmp_path: Path) -> None:
    model = FakeModel(Writer(), "openai:gpt-5")
    author = LlmAuthor(model, QUICK)
    problem = Problem(TASK, GPU, BOUND, JUDGE_VERSION)

    async def search(archive: Archive) -> Evolution:
        run = archive.start_run(TASK, "{}")
        evolution = Evolution(problem, [author], Bench(), archive, run, DIAL)
        await evolution.translate()
        await evolution.run()
        return evolution

    with Archive.open(str(tmp_path / "archive.db")) as archive:
        evolution = anyio.run(search, archive)
        known = archive.judged(TASK.key)
    by_model = [judged for judged in known if judged.candidate.lineage.author == author.name]
    assert {judged.candidate.lineage.operator for judged in by_model} > {"translate"}
    assert any(judged.verdict.passed for judged in by_model)
    assert any(not judged.verdict.passed for judged in by_model)
    for judged in by_model:
        lineage = judged.candidate.lineage
        assert lineage.cost_usd > 0.0
        assert lineage.prompt is not None and "# The task: softmax" in lineage.prompt
        assert lineage.reply is not None and judged.candidate.program.source.strip() in lineage.reply
        assert lineage.note.startswith(("One block per row", "The sum is left out"))
    spent = sum(judged.candidate.lineage.cost_usd for judged in by_model)
    # What was paid for and not judged, because it was known already, is spent all the same.
    assert evolution.ledger.spent >= spent * (1 - 1e-9)
    assert len(by_model) <= len(model.prompts)
