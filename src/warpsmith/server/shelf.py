"""Tasks by name: a file under one folder, or the beginning of a key in the archive. Nothing else is read or run."""

from __future__ import annotations

import ast
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from warpsmith.archive import Archive, ArchivedTask
from warpsmith.device.choose import Choice
from warpsmith.errors import TaskError
from warpsmith.records import Task
from warpsmith.task import load_task
from warpsmith.task.sourcefile import split

MOST_FILES = 1000
"""Files that are looked at."""
LOAD_SECONDS = 300.0

_MAX_FILE = 1 << 20
_KEPT = 8
_KEY = re.compile(r"[0-9a-f]{4,16}")
_INPUTS = {"get_inputs", "example_inputs"}


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A file that looks like a task: its name below the folder, and its text."""

    name: str
    text: str


class Shelf:
    """Finds and loads tasks. May be used from several threads; tasks are loaded one at a time.

    A task file is ordinary Python, and to load it is to run it: the folder must hold files that the user trusts. A file
    that does not end keeps others from being loaded; what is loaded can still be judged for.
    """

    def __init__(self, root: Path, archive: Archive, choice: Choice) -> None:
        self._root = root.resolve()
        self._archive = archive
        self._choice = choice
        self._loaded: OrderedDict[tuple[str, int, int], Task] = OrderedDict()
        self._turn = threading.Lock()

    async def task(self, name: str) -> Task:
        """Return the task of a file, or of a key whose file is in the folder, and put it into the archive.

        Raises TaskError where there is none, or it takes too long to load; ArchiveError for an unknown key.
        """
        with anyio.move_on_after(LOAD_SECONDS):
            return await anyio.to_thread.run_sync(self._task, name, abandon_on_cancel=True)
        raise TaskError(f"to load the task took longer than {LOAD_SECONDS:g} s")

    def known(self, name: str) -> ArchivedTask | None:
        """Return the task whose key in the archive begins with `name`; None where `name` is a file's.

        Raises ArchiveError where it is the beginning of no key, or of several.
        """
        if not self._is_key(name):
            return None
        return self._archive.task(self._archive.task_key(name, self._choice.spec.name))

    def files(self) -> Iterator[TaskFile]:
        """Yield what looks like a task in the folder, in the order of names; nothing is run."""
        for path in self._python_files():
            text = _text_of(path)
            if text is not None and _looks_like_task(text):
                yield TaskFile(path.relative_to(self._root).as_posix(), text)

    def _is_key(self, name: str) -> bool:
        return _KEY.fullmatch(name) is not None and not (self._root / name).exists()

    def _task(self, name: str) -> Task:
        archived = self.known(name)
        task = self._load(*self._file(name)) if archived is None else self._of_key(archived)
        self._archive.add_task(task)
        return task

    def _of_key(self, archived: ArchivedTask) -> Task:
        """Return the task of a file in the folder that has the text of an archived one, which itself is not run."""
        class_name = split(archived.origin)[1]
        for each in self.files():
            if each.text == archived.source:
                task = self._load(self._root / each.name, class_name)
                if task.key == archived.key:
                    return task
        raise TaskError(
            f"no file in the folder of tasks is that of task {archived.key}: it can be read, but nothing can be judged"
        )

    def _file(self, name: str) -> tuple[Path, str | None]:
        """Return the file that a name means and the class in it. Raises TaskError for what is not in the folder."""
        file, class_name = split(name)
        try:
            path = (self._root / file).resolve()
            inside = path.is_relative_to(self._root) and path.suffix == ".py" and path.is_file()
        except (OSError, ValueError, RuntimeError):  # A name too long, with a NUL, or a link that leads to itself.
            inside = False
        if not inside:
            raise TaskError("there is no such file in the folder of tasks; list_tasks names those that there are")
        return path, class_name

    def _load(self, path: Path, class_name: str | None) -> Task:
        target = str(path) if class_name is None else f"{path}:{class_name}"
        with self._turn:
            status = path.stat()
            place = (target, status.st_mtime_ns, status.st_size)
            if place not in self._loaded:
                self._loaded[place] = load_task(target, alone=self._choice.exclusive)
                if len(self._loaded) > _KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(place)
            return self._loaded[place]

    def _python_files(self) -> Iterator[Path]:
        """Yield Python files, but no hidden ones, none in environments, and none beyond the limit."""
        found = 0
        for place, folders, names in os.walk(self._root):
            folders[:] = sorted(
                each for each in folders if not each.startswith(".") and not Path(place, each, "pyvenv.cfg").exists()
            )
            for name in sorted(names):
                if name.endswith(".py") and not name.startswith("."):
                    found += 1
                    if found > MOST_FILES:
                        return
                    yield Path(place, name)


def _text_of(path: Path) -> str | None:
    """Return the text of a plain file of ordinary size; None for anything else, as for a link."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_FILE:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _looks_like_task(text: str) -> bool:
    """Whether a file defines a class and inputs for it."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    named = {each.name for each in body if isinstance(each, ast.FunctionDef)}
    named |= {
        target.id
        for each in body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    return bool(named & _INPUTS) and any(isinstance(each, ast.ClassDef) for each in body)
