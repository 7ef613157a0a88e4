"""A flag beats the environment, which beats the file, which beats the default; a bad value is one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from warpsmith.errors import SettingsError
from warpsmith.settings import load_settings, user_cache


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_order_of_the_sources(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().budget == 60.0
    (empty_folder / "warpsmith.toml").write_text("budget = 10\nseed = 4\n")
    assert (load_settings().budget, load_settings().seed) == (10.0, 4)
    monkeypatch.setenv("WARPSMITH_BUDGET", "20")
    assert (load_settings().budget, load_settings().seed) == (20.0, 4)
    assert load_settings(budget=30).budget == 30.0


def test_a_flag_that_was_not_given_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARPSMITH_DEVICE", "A100")
    assert load_settings(device=None, seed=None).device == "A100"


@pytest.mark.parametrize(
    ("flags", "environment", "file", "message"),
    [
        ({"budget": -1}, {}, "", r"budget = -1 \(given\): input should be greater than 0"),
        ({"budget": float("inf")}, {}, "", "budget = inf"),
        ({}, {"WARPSMITH_WORKERS": "many"}, "", r"workers = 'many' \(from WARPSMITH_WORKERS\)"),
        ({}, {}, "seed = -3", r"seed = -3 \(from warpsmith.toml\)"),
        ({}, {}, "budgte = 3", "warpsmith.toml sets 'budgte', which is not a setting; known are archive"),
        ({}, {"WARPSMITH_BUDGTE": "3"}, "", "the environment sets WARPSMITH_BUDGTE, which is not a setting"),
        ({}, {}, "budget = = 3", "warpsmith.toml: not valid TOML"),
        ({"target_fraction": 1.5}, {}, "", "target_fraction = 1.5"),
    ],
)
def test_bad_values_are_named_with_their_source(
    empty_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: dict[str, object],
    environment: dict[str, str],
    file: str,
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if file:
        (empty_folder / "warpsmith.toml").write_text(file)
    with pytest.raises(SettingsError, match=message):
        load_settings(**flags)


def test_cache_goes_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "warpsmith"
    assert load_settings(cache="~/kernels").cache == Path.home() / "kernels"


def test_the_password_of_a_database_is_not_kept_in_the_archive() -> None:
    settings = load_settings(archive="postgresql://me:sesame@host/warpsmith")
    assert "sesame" not in settings.to_json()
    assert "postgresql://me:***@host/warpsmith" in settings.to_json()
    assert load_settings(archive="a:b@c.db").archive in load_settings(archive="a:b@c.db").to_json()
