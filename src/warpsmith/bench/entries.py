"""Which tasks a benchmark has: found in a checkout of KernelBench, in a folder of task files, or in a list.

KernelBench/level1/19_ReLU.py    levels, and a number in front of every name
folder/gelu.py                   any folder of files that define `get_inputs` or `example_inputs`
list.txt                         a path in each line, relative to the list; `#` begins a comment
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from warpsmith.errors import UserError
from warpsmith.records import digest

USUAL_LEVELS = (1, 2, 3)
"""Level 4 of KernelBench fetches models from the network, so it is taken only where it is asked for."""

_INPUTS = ("get_inputs", "example_inputs")
_LEVEL = re.compile(r"level(\d+)")
_NUMBERED = re.compile(r"(\d+)_")
_RANGE = re.compile(r"(\d+)-(\d+)")
_CLASS = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of a benchmark. `name` is its own among all entries: `level1/19_ReLU`, or the file's name.

    `target` is what `optimize` takes: an absolute path, with `:Class` where one was named. `source_hash` is the hash of
    the file's text and of that class. `level` and `number` are those of KernelBench, where there are any.
    """

    name: str
    target: str
    source_hash: str
    level: int | None = None
    number: int | None = None

    @property
    def path(self) -> Path:
        """The file."""
        match = _CLASS.fullmatch(self.target)
        return Path(match[1] if match else self.target)


def discover(
    path: str | Path, levels: Sequence[int] | None = None, select: Sequence[str] | None = None
) -> tuple[Entry, ...]:
    """Return the tasks at `path`, in natural order: by level, then 2 before 10.

    `path` is a checkout of KernelBench or a level of one, a folder of task files, a task file, or a list of files.
    `levels` keeps those levels only. `select` keeps what one of its patterns names: a number (`19`), a range (`1-20`),
    either with its level (`2/76`), `all`, or a name with wildcards (`*ReLU*`).

    Raises UserError where there is nothing at `path`, where a level is missing, or where a pattern names nothing.
    """
    place = Path(path).expanduser().absolute()
    found = _of_levels(_found(place, levels), place, levels)
    _refuse_same_names(found)
    entries = sorted(found, key=_natural)
    for pattern in select or ():
        if not any(_named(entry, pattern) for entry in entries):
            raise UserError(f"{pattern!r} names none of the {len(entries)} tasks at {path}")
    if select:
        entries = [entry for entry in entries if any(_named(entry, pattern) for pattern in select)]
    return tuple(entries)


def _found(place: Path, levels: Sequence[int] | None) -> list[Entry]:
    if not place.exists():
        raise UserError("no such file or folder", file=str(place))
    if place.is_file():
        found = [_entry(place, place.stem)] if place.suffix == ".py" else list(_listed(place))
    else:
        folders = _level_folders(place)
        wanted = set(USUAL_LEVELS if levels is None else levels) if folders else set()
        own = _LEVEL.fullmatch(place.name)
        found = list(_in_folder(place, int(own[1]) if own else None)) if not folders else []
        for level, folder in folders.items():
            found += _in_folder(folder, level) if level in wanted else []
    if not found:
        raise UserError("no tasks here: a task file defines get_inputs() or example_inputs", file=str(place))
    return found


def _of_levels(found: list[Entry], place: Path, levels: Sequence[int] | None) -> list[Entry]:
    if levels is None:
        return found
    for level in levels:
        if all(entry.level != level for entry in found):
            raise UserError(f"there is no level {level}", file=str(place))
    return [entry for entry in found if entry.level in levels]


def _level_folders(place: Path) -> dict[int, Path]:
    """The folders `level1`, `level2` … of a checkout, which has them in a folder `KernelBench`."""
    for root in (place, place / "KernelBench"):
        if root.is_dir():
            matches = ((_LEVEL.fullmatch(each.name), each) for each in root.iterdir() if each.is_dir())
            if folders := {int(match[1]): each for match, each in matches if match}:
                return folders
    return {}


def _in_folder(folder: Path, level: int | None) -> Iterator[Entry]:
    for path in folder.glob("*.py"):
        if not path.name.startswith("_") and _is_task(path):
            name = path.stem if level is None else f"level{level}/{path.stem}"
            yield _entry(path, name, level=level)


def _listed(file: Path) -> Iterator[Entry]:
    for number, line in enumerate(_text(file).splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _CLASS.fullmatch(text)
        path = (file.parent / Path(match[1] if match else text).expanduser()).resolve()
        if not path.is_file():
            raise UserError(f"lists {text}, which is not there", file=str(file), line=number)
        level = _LEVEL.fullmatch(path.parent.name)
        name = path.stem if level is None else f"level{level[1]}/{path.stem}"
        named = match[2] if match else ""
        yield _entry(path, f"{name}:{named}" if named else name, level=int(level[1]) if level else None, named=named)


def _entry(path: Path, name: str, *, level: int | None = None, named: str = "") -> Entry:
    numbered = _NUMBERED.match(path.name)
    return Entry(
        name=name,
        target=f"{path}:{named}" if named else str(path),
        source_hash=digest("source", _text(path), named),
        level=level,
        number=int(numbered[1]) if numbered else None,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", file=str(path)) from error


def _is_task(path: Path) -> bool:
    """Whether a file draws inputs. One that is no Python counts: that it cannot be used is a result, with its line."""
    try:
        tree = ast.parse(_text(path))
    except (SyntaxError, ValueError):
        return True
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return any(name in names for name in _INPUTS)


def _refuse_same_names(entries: Sequence[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in seen:
            raise UserError(f"{entry.target} and {seen[entry.name].target} would both be called {entry.name}")
        seen[entry.name] = entry


def _natural(entry: Entry) -> tuple[float, float, list[tuple[int, str]]]:
    """Sort by level, number, then name with the numbers in it as numbers; what has no level or number comes last."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", entry.name)]
    last = float("inf")
    return (
        last if entry.level is None else entry.level,
        last if entry.number is None else entry.number,
        parts,
    )


def _named(entry: Entry, pattern: str) -> bool:
    """Whether a pattern of `select` names an entry."""
    if pattern == "all":
        return True
    level, slash, rest = pattern.rpartition("/")
    if slash and level.removeprefix("level").isdigit() and int(level.removeprefix("level")) != entry.level:
        return False
    if rest.isdigit():
        return entry.number == int(rest)
    if match := _RANGE.fullmatch(rest):
        return entry.number is not None and int(match[1]) <= entry.number <= int(match[2])
    return fnmatch(entry.name, pattern) or fnmatch(entry.name.rpartition("/")[2], rest if slash else pattern)
