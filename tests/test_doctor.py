"""What `warpsmith doctor` says must be so, and must not give a secret away."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from warpsmith import doctor
from warpsmith.doctor import Item, can_optimize, examine, render_diagnosis
from warpsmith.errors import CompilerUnavailable
from warpsmith.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return load_settings(cache=tmp_path / "cache")


def named(items: tuple[Item, ...], name: str) -> Item:
    return next(item for item in items if item.name == name)


def text(items: tuple[Item, ...]) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(render_diagnosis(items))
    return file.getvalue()


def test_a_compiler_is_only_there_if_it_compiles(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    items = examine(settings)
    assert named(items, "NVRTC").state == "yes"
    assert "compiled a kernel in" in named(items, "NVRTC").found
    assert can_optimize(items)

    def refuse(*_: object) -> None:
        raise CompilerUnavailable("the CUDA headers are not installed: pip install nvidia-cuda-runtime")

    monkeypatch.setattr(doctor.Builder, "build", refuse)
    items = examine(settings)
    assert named(items, "NVRTC").state == "no"
    assert "pip install nvidia-cuda-runtime" in text(items)
    assert not can_optimize(items)


def test_keys_are_named_and_never_shown(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sesame")
    monkeypatch.setenv("MISTRAL_API_KEY", "")
    items = examine(settings)
    assert named(items, "API keys").found == "OPENAI_API_KEY"
    assert "sesame" not in text(items)


def test_profilers_are_looked_for_on_the_path(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ncu").write_text("#!/bin/sh\n")
    (tools / "ncu").chmod(0o755)
    (tools / "nsys").write_text("not to be run")
    monkeypatch.setenv("PATH", str(tools))
    assert named(examine(settings), "profilers").found == "ncu"


def test_an_archive_that_cannot_be_kept_is_found_before_the_run(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").write_text("")
    broken = settings.model_copy(update={"archive": str(tmp_path / "file" / "archive.db")})
    items = examine(broken)
    assert named(items, "archive").state == "no"
    assert not can_optimize(items)
    assert named(examine(settings), "archive").state == "yes"
    assert list(tmp_path.glob("warpsmith-out")) == [], "looking must not make anything"


def test_without_a_driver_the_simulator_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import cuda.bindings.driver as driver

    def missing(_: int) -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(driver, "cuInit", missing)
    item = named(examine(settings), "GPU")
    assert (item.state, item.found) == ("absent", "no NVIDIA driver")
    assert "estimates" in item.allows
