"""The JSON files of a generation folder: what `tell` needs to know of a question, and what it answers.

question.json   what was asked: operator, parents, generation, task, run
verdict.json    beside an answer: what the judge says of it, or why it could not be read
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from warpsmith.archive import to_plain
from warpsmith.errors import UserError
from warpsmith.files import read_text
from warpsmith.records import Judged

VERSION = 1
QUESTION_NAME = "question.json"
VERDICT_NAME = "verdict.json"

MAX_NAME = 60
"""Characters in the name of an author or an operator."""

_MAX_BYTES = 100_000
_Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f]*$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class QuestionDocument(_Document):
    """What was asked of `author`: to apply `operator` to `parents`. `run` is the run of the archive that asked."""

    version: Literal[1] = 1
    task_key: _Key
    run: Annotated[int, Field(ge=1, lt=2**63)]
    generation: Annotated[int, Field(ge=0, lt=2**63)]
    author: _Name
    operator: _Name
    parents: Annotated[list[_Key], Field(max_length=16)]


class VerdictDocument(_Document):
    """What became of an answer. Either `problem` says why it is no candidate, or why the judge could not be asked, or
    there is a verdict.

    `seconds` is the median time of a call, `source` whether it was measured or estimated; `against` says how many times
    as fast it is as its fastest `parent` and as the `best` of all other programs, where their times can be compared,
    and which share of the `bound` it reaches. `verdict` is the whole record.
    """

    version: Literal[1] = 1
    candidate: str | None = None
    judge_version: str | None = None
    device: str | None = None
    passed: bool = False
    problem: str | None = None
    stage: str | None = None
    reason: str | None = None
    message: str | None = None
    seconds: float | None = None
    source: str | None = None
    against: dict[str, float] = Field(default_factory=dict)
    verdict: dict[str, Any] | None = None


def verdict_document(judged: Judged, judge_version: str, device: str, against: dict[str, float]) -> VerdictDocument:
    """Return what `verdict.json` says of a candidate that was judged."""
    failure, timing = judged.verdict.failure, judged.verdict.timing
    return VerdictDocument(
        candidate=judged.candidate.key,
        judge_version=judge_version,
        device=device,
        passed=judged.verdict.passed,
        stage=judged.verdict.stage.name.lower(),
        reason=failure.reason if failure else None,
        message=failure.message if failure else None,
        seconds=timing.median if timing else None,
        source=timing.source if timing else None,
        against=against,
        verdict=to_plain(judged.verdict),
    )


def read_question(file: Path) -> QuestionDocument:
    """Read a question. Raises UserError naming the file, and what is wrong with it."""
    text = read_text(file, _MAX_BYTES)
    try:
        return QuestionDocument.model_validate_json(text)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        if place == "version":
            message = f"was written in version {detail['input']!r} of its format; this Warpsmith reads {VERSION}"
        else:
            message = f"{place}: {detail['msg']}" if place else detail["msg"]
        raise UserError(message, file=str(file)) from error
