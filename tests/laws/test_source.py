"""Laws of style that a formatter does not know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.laws.sources import FILES, TREES, name

LINES = 400
LONGER = {"records.py": 820}
"""The nouns stand in one file, the first to be read."""

MACHINE = re.compile(r"(?<!\w)/(?:home|root|work|Users)/|localhost:|index-url|" + "TO" + "DO|FIX" + "ME")
"""Text that only makes sense on one machine."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER.get(name(path), LINES), f"{name(path)} says more than one thing"


def broad(tree: ast.AST) -> Iterator[int]:
    """Lines of handlers that catch everything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(
                kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
                for kind in kinds
            ):
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=name)
def test_errors_are_caught_by_type(path: Path) -> None:
    assert list(broad(TREES[path])) == [], "a broad except swallows bugs"


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods, and the module itself, that have no docstring."""
    if not (ast.get_docstring(tree) or "").strip():
        yield "the module"
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            members = node.body if isinstance(node, ast.ClassDef) else []
            for member in members:
                if isinstance(member, Function) and not member.name.startswith("_") and not ast.get_docstring(member):
                    yield f"{node.name}.{member.name}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_whatever_is_public_has_a_docstring(path: Path) -> None:
    assert list(undocumented(TREES[path])) == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_names_a_machine_or_is_left_to_do(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert MACHINE.findall(text) == []


def test_the_laws_would_notice() -> None:
    tree = ast.parse(
        "try:\n    pass\nexcept (KeyError, Exception):\n    pass\ntry:\n    pass\nexcept:\n    pass\ndef public(): ..."
    )
    assert list(broad(tree)) == [3, 7]
    assert list(undocumented(tree)) == ["the module", "public"]
