"""A setting that nothing reads is a lie to whoever sets it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import warpsmith
from warpsmith.settings import Settings

SOURCES = [path for path in Path(warpsmith.__file__).parent.rglob("*.py") if path.name != "settings.py"]
READ = {
    node.attr
    for path in SOURCES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Attribute)
    and isinstance(node.ctx, ast.Load)
    and isinstance(node.value, (ast.Name, ast.Attribute))
    and (node.value.id if isinstance(node.value, ast.Name) else node.value.attr).lstrip("_") == "settings"
}


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_setting_is_read(field: str) -> None:
    assert field in READ, f"no source reads settings.{field}"
