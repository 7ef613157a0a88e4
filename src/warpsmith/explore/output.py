"""Writes what came of a task into a folder of its own.

    kernel.cu  plan.toml   the fastest program that passed; absent where none did
    functional.py          the task as a readable pure function
    verdict.json           task, bound, candidate and verdict
    report.html            all of it to look at

Each file is complete at every moment: it is written elsewhere first and moved into place. Other files in the folder are
left alone.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from warpsmith.archive import to_plain
from warpsmith.errors import SettingsError
from warpsmith.explore.outcome import Outcome
from warpsmith.explore.report import render_report
from warpsmith.program import write_program
from warpsmith.records import Task

FILES = ("kernel.cu", "plan.toml", "functional.py", "report.html", "verdict.json")


def write_results(outcome: Outcome, folder: Path) -> Path:
    """Write the files of an outcome into `folder`, which is made if need be, and return it.

    Raises SettingsError where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".warpsmith-", dir=folder) as name:
            staged = Path(name)
            _stage(outcome, staged)
            for file in FILES:
                if (staged / file).exists():
                    (staged / file).replace(folder / file)
                else:
                    (folder / file).unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot write results to {folder}: {error.strerror}") from error
    return folder


def folder_for(out: Path, task: Task) -> Path:
    """Return the folder in `out` that belongs to a task: named after it, and after its key too where that is taken."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", task.name).strip("-.") or "task"
    plain = out / name
    return plain if not plain.exists() or _owner(plain) == task.key else out / f"{name}-{task.key[:8]}"


def verdict_document(outcome: Outcome) -> dict[str, Any]:
    """Return what `verdict.json` says. `candidate` and `verdict` are None where nothing passed."""
    best, task = outcome.best, outcome.task
    candidate = best.candidate if best else None
    return {
        "task": {
            "key": task.key,
            "name": task.name,
            "origin": task.origin,
            "tolerance": to_plain(task.tolerance),
            "restrictions": list(task.restrictions),
        },
        "device": outcome.device,
        "bound": to_plain(outcome.bound),
        "passed": best is not None,
        "candidate": candidate
        and {
            "key": candidate.key,
            "program": candidate.program.key,
            "tunables": dict(candidate.tunables),
            "lineage": to_plain(candidate.lineage),
        },
        "verdict": best and to_plain(best.verdict),
        "search": {
            "judged": len(outcome.history),
            "passed": outcome.passed,
            "generations": outcome.generations,
            "stopped": outcome.stopped,
            "course": [{"spent": round(step.spent, 3), "seconds": step.seconds} for step in outcome.course],
        },
    }


def _stage(outcome: Outcome, folder: Path) -> None:
    if outcome.best is not None:
        write_program(folder, outcome.best.candidate.program)
    (folder / "functional.py").write_text(outcome.task.functional_source, encoding="utf-8")
    (folder / "report.html").write_text(render_report(outcome), encoding="utf-8")
    document = json.dumps(verdict_document(outcome), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "verdict.json").write_text(document + "\n", encoding="utf-8")


def _owner(folder: Path) -> str | None:
    """Return the key of the task whose results a folder holds, None where it holds something else."""
    try:
        document = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
        return str(document["task"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
