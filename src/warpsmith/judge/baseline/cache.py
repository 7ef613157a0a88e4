"""Baselines that were measured before, in a folder, one JSON file each.

Cached numbers may guide a search. They must not be compared with a candidate: GPUs differ from day to day and from one
another, so a comparison measures the baseline again, in turns with the candidate.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from warpsmith.errors import SettingsError
from warpsmith.records import Baseline, GpuState, Timing, digest

_FORMAT = 1
"""Changes with the file's form and with how baselines are measured: an older file reads as missing."""


@dataclass(frozen=True, slots=True)
class BaselineKey:
    """What a measurement depends on. `modes` are the names of the baselines, such as `eager` and `compile graph`."""

    task_key: str
    device: str
    driver: str
    torch: str
    cuda: str
    modes: tuple[str, ...]
    rotate_bytes: int

    @property
    def name(self) -> str:
        """Hash of all of it."""
        return digest("baseline", str(_FORMAT), json.dumps(asdict(self), sort_keys=True))


class BaselineCache:
    """A folder, shared by any number of processes. Raises SettingsError where it cannot be made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"baselines cannot be kept in {folder}: {error.strerror}") from error

    def path(self, key: BaselineKey) -> Path:
        """Where the baselines for `key` lie."""
        return self._folder / f"{key.name}.json"

    def load(self, key: BaselineKey) -> tuple[Baseline, ...] | None:
        """Return what was measured, or None where there is no sound entry for exactly this key."""
        try:
            content = json.loads(self.path(key).read_bytes())
            if content["format"] != _FORMAT or content["key"] != _plain(asdict(key)):
                return None
            found = tuple(_baseline(entry) for entry in content["baselines"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Cut short, altered, of another format, or not there: whoever asks measures again.
            return None
        return found if tuple(each.name for each in found) == key.modes else None

    def store(self, key: BaselineKey, baselines: Sequence[Baseline]) -> None:
        """Keep baselines; a reader sees all of the file or nothing.

        Raises ValueError where they are not those that the key names.
        """
        names = tuple(each.name for each in baselines)
        if names != key.modes:
            raise ValueError(f"the key is for {key.modes}, these are {names}")
        content = {"format": _FORMAT, "key": asdict(key), "baselines": [asdict(each) for each in baselines]}
        path = self.path(key)
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, allow_nan=False)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise


def _plain(value: dict[str, Any]) -> Any:
    """The value as JSON gives it back."""
    return json.loads(json.dumps(value))


def _baseline(entry: dict[str, Any]) -> Baseline:
    """Raises ValueError, KeyError or TypeError for an entry that makes no sense."""
    if entry["mode"] not in ("eager", "compile", "max-autotune") or not isinstance(entry["graph"], bool):
        raise ValueError(f"unknown mode {entry['mode']!r}")
    timing = entry["timing"]
    return Baseline(entry["mode"], entry["graph"], None if timing is None else _timing(timing), str(entry["problem"]))


def _timing(entry: dict[str, Any]) -> Timing:
    if entry["source"] != "measured":
        raise ValueError("a baseline is measured")
    low, high = entry["interval"]
    clocks = entry["clocks"]
    return Timing(
        samples=tuple(float(sample) for sample in entry["samples"]),
        median=float(entry["median"]),
        interval=(float(low), float(high)),
        source="measured",
        device=str(entry["device"]),
        clocks=None if clocks is None else (int(clocks[0]), int(clocks[1])),
        states=tuple(GpuState(**{**state, "throttle": tuple(state["throttle"])}) for state in entry["states"]),
        clocks_of=tuple((str(name), float(seconds)) for name, seconds in entry["clocks_of"]),
    )
