"""Imports go one way, so that each part can be read, tested and trusted without those to its right."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.laws.sources import FILES, TREES, module, name

ORDER = (
    {"records", "errors", "version", "wire"},
    {"settings", "child", "files", "templates"},
    {"nursery", "nursery_process"},
    {"task", "program"},
    {"device"},
    {"judge", "archive"},
    {"author"},
    {"evolve"},
    {"explore", "cluster", "deliver"},
    {"optimize", "pipeline", "doctor"},
    {"exchange"},
    {"server"},
    {"bench"},
    {"contest"},
    {"cli", "__init__", "__main__"},
)
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}


def part_of(dotted: str) -> str:
    """The first name below the package."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and part of every import from the package, also those inside functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, part_of(alias.name)) for alias in node.names if alias.name.startswith("warpsmith")
            )
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            if node.module == "warpsmith":
                names = (alias.name for alias in node.names)
                yield from ((node.lineno, each if each in RANK else "__init__") for each in names)
            elif node.module is not None and node.module.startswith("warpsmith."):
                yield node.lineno, part_of(node.module)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    here = part_of(module(path))
    assert here in RANK, f"{here} has no place in the order of imports"
    for line, there in imported(TREES[path]):
        assert there in RANK, f"line {line}: {there} has no place in the order of imports"
        together = there == here or {here, there} == {"optimize", "pipeline"}
        assert together or RANK[there] < RANK[here], f"line {line}: {here} must not import {there}"


def test_the_law_would_notice() -> None:
    source = "def late():\n    from warpsmith.author.builtin import BuiltinAuthor\n    import warpsmith.cli\n    from warpsmith import evolve"
    assert list(imported(ast.parse(source))) == [(2, "author"), (3, "cli"), (4, "evolve")]
    assert RANK["author"] > RANK["judge"]
