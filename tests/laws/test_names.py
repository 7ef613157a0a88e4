"""What a package shows is what it says it shows."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import warpsmith
from tests.laws.sources import FILES, ROOT, TREES, module, name

PACKAGES = [path for path in FILES if path.name == "__init__.py"]


def shown(tree: ast.Module) -> set[str]:
    """Public names that a package's file binds: its own, and those taken from the rest of Warpsmith but modules."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("warpsmith"):
            names |= {
                alias.asname or alias.name for alias in node.names if not is_module(f"{node.module}.{alias.name}")
            }
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {each for each in names if not each.startswith("_")}


def is_module(dotted: str) -> bool:
    """Whether a dotted name below `warpsmith` is a file of the package, and not something that a file defines."""
    place = ROOT.joinpath(*dotted.split(".")[1:])
    return place.with_suffix(".py").exists()


@pytest.mark.parametrize("path", PACKAGES, ids=name)
def test_all_is_what_is_visible(path: Path) -> None:
    package = importlib.import_module(module(path))
    said = list(getattr(package, "__all__", []))
    assert len(said) == len(set(said)), "a name is listed twice"
    assert set(said) == shown(TREES[path])
    for each in said:
        assert getattr(package, each) is not None


@pytest.mark.parametrize("each", ["Archive", "Program", "Verdict", "load_task", "optimize"])
def test_the_promised_names_are_public(each: str) -> None:
    assert each in warpsmith.__all__
    assert hasattr(warpsmith, each)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        warpsmith.optimise  # noqa: B018


def test_optimize_stays_a_function_after_its_module_is_imported() -> None:
    importlib.import_module("warpsmith.optimize")
    assert callable(warpsmith.optimize)


def test_importing_warpsmith_is_light() -> None:
    """The compiler's worker imports the package at every start; PyTorch and a database would cost it seconds."""
    code = "import sys, warpsmith; print([heavy for heavy in ('torch', 'sqlalchemy', 'pydantic', 'anyio') if heavy in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
