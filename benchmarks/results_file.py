"""Where a benchmark keeps its results: a JSON file that is written anew after every part.

A run that is cut off loses at most the part under way. The next run with the same command on the same kind of machine
finds in the file what is measured already, and goes on from there. What was measured elsewhere, with another version
of the code that judges, or after another question, is not mixed with what is measured now: such a file is set aside,
as NAME.before.json, when the first new results are written.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import warpsmith
from warpsmith.device.choose import AUTO, Choice, choose
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import digest
from warpsmith.settings import usable_cores

FOLDER = Path(__file__).parent / "results"
_JUDGING = ("author", "cluster", "device", "judge", "program", "task", "child.py", "records.py", "wire.py")
"""Parts of the package that write candidates and judge them."""


def begin(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Choice]:
    """Add the options that all benchmarks of the judge have; return all options, and the GPU or the simulator.

    Ends the script where there is no GPU and no simulation is asked for.
    """
    parser.add_argument("--into", type=Path, help="folder of the results; by default benchmarks/results")
    parser.add_argument("--anew", action="store_true", help="measure again what the file holds already")
    parser.add_argument("--simulate", action="store_true", help="try this script without a GPU, on tiny sizes")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What was printed must not be lost either, if this is killed while it prints to a file.
        sys.stdout.reconfigure(line_buffering=True)
    choice = choose(AUTO, simulate=options.simulate)
    if not choice.measures and not options.simulate:
        print("There is no NVIDIA GPU here that can be used, so there is nothing to measure.")
        sys.exit(0)
    return options, choice


def machine(choice: Choice) -> dict[str, Any]:
    """What the numbers are measured on and with. Two cards of one model are the same here: see `card`."""
    return {
        "device": choice.spec.name,
        "measured": choice.measures,
        "judge": JUDGE_VERSION,
        "sources": _sources(Path(warpsmith.__file__).parent),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cores": usable_cores(),
    }


def card(choice: Choice) -> str:
    """Return a name for this very GPU, which no other has; empty for a simulated one."""
    return "" if choice.present is None else digest("card", choice.present.uuid)[:8]


def _sources(package: Path) -> str:
    """Hash the code that judges, so that results of two versions of it are never taken for one."""
    state = hashlib.sha256()
    for part in _JUDGING:
        under = package / part
        files = [under] if under.is_file() else sorted(path for path in under.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" not in path.parts:
                state.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return state.hexdigest()[:16]


def rounded(value: Any) -> Any:
    """Return the value with every number in it cut to six digits: more say nothing."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Results:
    """The results of one benchmark: `document` is what the file holds, and is written by `save`.

    `asked` is what the command asked for, as far as all results depend on it. With `forget` these keys are dropped from
    what was there. Without a folder (`--simulate` without `--into`) nothing is read, and the end is printed.
    """

    def __init__(
        self, name: str, choice: Choice, asked: Mapping[str, Any], folder: Path | None, forget: Iterable[str] = ()
    ) -> None:
        folder = FOLDER if folder is None and choice.measures else folder
        self.path = None if folder is None else folder / f"{name}.json"
        self._set_aside = False
        self.document: dict[str, Any] = {**machine(choice), "asked": dict(asked)}
        if self.path is not None and self.path.is_file():
            self._take(self.path, json.loads(self.path.read_text(encoding="utf-8")))
        for key in forget:
            self.document.pop(key, None)

    def _take(self, path: Path, old: dict[str, Any]) -> None:
        other = [key for key, value in self.document.items() if old.get(key) != value]
        if other:
            self._set_aside = True
            print(f"{path} differs in {', '.join(other)}: it is set aside, and all is measured anew", file=sys.stderr)
        else:
            self.document = old

    def save(self) -> None:
        """Write the file: all of it or, where this process is killed meanwhile, nothing."""
        self.document = rounded(self.document)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".json.new")
        fresh.write_text(json.dumps(self.document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if self._set_aside:
            self.path.replace(self.path.with_suffix(".before.json"))
            self._set_aside = False
        fresh.replace(self.path)

    def finish(self) -> None:
        """Say where the results are, or print them where they have no file."""
        print(json.dumps(self.document, indent=1) if self.path is None else f"written to {self.path}")
