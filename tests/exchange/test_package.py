"""Bundles from anybody: what is not exactly a bundle is refused in a line, and nothing is lost or written by it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.samples import TASK, candidate, failed, passed
from warpsmith.archive import Archive
from warpsmith.archive.extract import Extract, extract_candidates
from warpsmith.errors import SettingsError, UserError
from warpsmith.exchange import merge, package
from warpsmith.exchange.package import Bundle, read_bundle, write_bundle


def packed(folder: Path) -> Path:
    """A bundle of two candidates with verdicts, from an archive of its own."""
    with Archive.open(folder / "packed.db") as archive:
        run = archive.start_run(TASK, "{}")
        for drawn, verdict in ((candidate(1), passed(candidate(1))), (candidate(2), failed(candidate(2)))):
            archive.add_candidate(run, drawn)
            archive.add_verdict(run, verdict, judge_version="5", device="H200")
        keys = [candidate(1).key, candidate(2).key]
        extract = extract_candidates(archive, keys, judge_version="5", device="H200")
    write_bundle(folder / "bundle.zip", Bundle("verdicts", "5", "H200", extract))
    return folder / "bundle.zip"


def documents(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repack(file: Path, contents: dict[str, bytes], *, honest: bool = True) -> Path:
    """Pack other contents; `honest` has the manifest give their hashes."""
    if honest:
        manifest = json.loads(contents["manifest.json"])
        names = [name for name in manifest["documents"] if name in contents]
        manifest["documents"] |= {name: hashlib.sha256(contents[name]).hexdigest() for name in names}
        contents = {**contents, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return file


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], Path]:
    """Change the rows of one document, and have the manifest say so."""

    def edit(file: Path) -> Path:
        contents = documents(file)
        contents[name] = json.dumps(change(json.loads(contents[name]))).encode()
        return repack(file, contents)

    return edit


def row(number: int, **values: Any) -> Callable[[Any], Any]:
    return lambda rows: [{**each, **values} if place == number else each for place, each in enumerate(rows)]


def manifest(**values: Any) -> Callable[[Path], Path]:
    return lambda file: repack(
        file,
        {
            **(found := documents(file)),
            "manifest.json": json.dumps(json.loads(found["manifest.json"]) | values).encode(),
        },
        honest=False,
    )


def added(name: str) -> Callable[[Path], Path]:
    return lambda file: repack(file, {**documents(file), name: b"#!/bin/sh\n"})


def without(name: str) -> Callable[[Path], Path]:
    return lambda file: repack(file, {each: data for each, data in documents(file).items() if each != name})


def twice(file: Path) -> Path:
    contents = documents(file)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("tasks.json", contents["tasks.json"])
    return file


def changed_behind_the_manifest(file: Path) -> Path:
    contents = documents(file)
    return repack(
        file, {**contents, "programs.json": contents["programs.json"].replace(b"relu", b"evil")}, honest=False
    )


def bomb(file: Path) -> Path:
    return repack(file, {**documents(file), "tasks.json": b" " * 2_000_000})


def many(file: Path) -> Path:
    contents = {**documents(file), **{f"{number}.json": b"[]" for number in range(1000)}}
    return repack(file, contents)


def truncated(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-100])
    return file


def flipped(file: Path) -> Path:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))
    return file


def text(file: Path) -> Path:
    file.write_text("PK? no")
    return file


def deep(file: Path) -> Path:
    return repack(file, {**documents(file), "manifest.json": b"[" * 50_000 + b"]" * 50_000}, honest=False)


NO_BUNDLE = {
    "a path out of the folder": (added("../../evil.sh"), r"nothing else, see '\.\./\.\./evil\.sh'"),
    "an absolute path": (added("/etc/cron.d/evil"), "nothing else"),
    "a document too many": (added("more.json"), r"see 'more\.json'"),
    "a document too few": (without("runs.json"), r"see 'runs\.json'"),
    "no manifest": (lambda file: repack(file, {"tasks.json": b"[]"}, honest=False), "is no bundle"),
    "a document twice": (twice, "is no bundle"),
    "too many documents": (many, "too many files"),
    "a wrong hash": (changed_behind_the_manifest, r"programs\.json is not what the manifest says"),
    "a newer version": (manifest(version=2), "version 2; this Warpsmith reads version 1"),
    "another format": (manifest(format="zip"), "no manifest that can be read"),
    "another kind": (manifest(kind="gifts"), "no manifest that can be read"),
    "a manifest nested deep": (deep, "no manifest that can be read"),
    "a zip bomb": (bomb, r"tasks\.json unpacks to more than 1000000 bytes"),
    "cut off": (truncated, "is no bundle"),
    "no zip": (text, "not a database"),
    "a row that is none": (edited("tasks.json", lambda rows: [1]), r"tasks\.json cannot be read"),
    "no rows": (edited("runs.json", lambda rows: {}), r"runs\.json cannot be read"),
    "a text for a number": (edited("runs.json", row(0, id="1")), r"runs\.json cannot be read: 0\.id"),
    "no time zone": (edited("runs.json", row(0, started_at="2026-01-01T00:00:00")), "without a time zone"),
}

CONTRADICTS = {
    "another program under a key": (edited("programs.json", row(0, source="evil")), "has the key"),
    "another task under a key": (
        edited("tasks.json", lambda rows: [{**each, "graph": each["graph"].replace("64", "65")} for each in rows]),
        "it was changed",
    ),
    "a looser tolerance": (
        edited(
            "tasks.json", lambda rows: [{**each, "tolerance": each["tolerance"].replace("2.0", "9.0")} for each in rows]
        ),
        "it was changed",
    ),
    "other tunables under a key": (edited("candidates.json", row(0, tunables='[["BLOCK",512]]')), "has the key"),
    "tunables that are none": (edited("candidates.json", row(0, tunables='[["BLOCK",7]]')), "cannot be one"),
    "a verdict on another candidate": (
        edited("verdicts.json", lambda rows: [{**rows[0], "document": rows[1]["document"]}]),
        "says that it is on",
    ),
    "a verdict on nothing": (edited("verdicts.json", row(0, candidate_key="0" * 16)), "which is missing"),
    "a verdict that lies": (
        edited(
            "verdicts.json",
            row(0, document='{"candidate_key":"","task_key":"","stage":"TIME","failure":null,"timing":null}'),
        ),
        "cannot be read",
    ),
    "a run that is missing": (edited("proposals.json", row(0, run_id=99)), "run 99, which is missing"),
    "a program that is missing": (edited("programs.json", lambda rows: rows[:1]), "is missing"),
    "no task": (edited("tasks.json", lambda rows: []), "does not know what this refers to"),
    "a price to be proud of": (
        edited(
            "proposals.json",
            lambda rows: [
                {**each, "document": each["document"].replace('"cost_usd":0.0', '"cost_usd":-9.0')} for each in rows
            ],
        ),
        "-9.0 dollars",
    ),
    "a generation beyond numbers": (
        edited(
            "proposals.json",
            lambda rows: [
                {**each, "document": each["document"].replace('"generation":0', f'"generation":{10**30}')}
                for each in rows
            ],
        ),
        "cannot be kept",
    ),
    "a record nested deep": (edited("proposals.json", row(0, document="[" * 100_000)), "cannot be"),
    "half a letter": (
        edited(
            "verdicts.json",
            lambda rows: [{**each, "document": each["document"].replace("Load 16", "\\ud800")} for each in rows],
        ),
        "cannot be kept",
    ),
    "settings that are none": (edited("runs.json", row(0, settings="[]")), "no JSON object"),
}


@pytest.mark.parametrize("how", [*NO_BUNDLE, *CONTRADICTS])
def test_a_bundle_that_is_none_is_refused_and_changes_nothing(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "MAX_DOCUMENT", 1_000_000)
    spoil, message = (NO_BUNDLE | CONTRADICTS)[how]
    (tmp_path / "in").mkdir()
    file = spoil(packed(tmp_path / "in"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        merge(tmp_path / "into.db", file)
    assert "\n" not in str(caught.value)
    if how in NO_BUNDLE and how != "no zip":
        assert str(file) in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before, "not even an archive was made"
    if (tmp_path / "into.db").exists() and how != "no zip":
        with Archive.open(tmp_path / "into.db") as archive:
            assert (archive.tasks(), archive.runs(), archive.keys("")) == ([], [], [])


def test_a_damaged_byte_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"damaged|is no bundle|is not what|cannot be read"):
        read_bundle(flipped(packed(tmp_path)))


def test_an_honest_bundle_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = packed(tmp_path)
    bundle = read_bundle(file)
    assert (bundle.kind, bundle.judge_version, bundle.device) == ("verdicts", "5", "H200")
    assert {row.key for row in bundle.extract.candidates} == {candidate(1).key, candidate(2).key}
    write_bundle(tmp_path / "again.zip", bundle)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(packed(tmp_path))
    for limit, least in (("MAX_ROWS", 1), ("MAX_DOCUMENT", 10), ("MAX_TOTAL", 10), ("MAX_FILE", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(package, limit, least)
            with pytest.raises(UserError, match="one bundle"):
                write_bundle(tmp_path / "large.zip", bundle)
    assert not (tmp_path / "large.zip").exists()


def test_a_bundle_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = packed(tmp_path)
    for limit, least, message in (
        ("MAX_FILE", 10, "larger than 10 bytes"),
        ("MAX_ROWS", 1, "1 is the limit"),
        ("MAX_TOTAL", 10, "more than"),
    ):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=message):
            patch.setattr(package, limit, least)
            read_bundle(file)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        write_bundle(tmp_path / "nowhere" / "b.zip", Bundle("candidates", "5", "H200", Extract()))
    with pytest.raises(UserError, match=r"gone\.zip"):
        read_bundle(tmp_path / "gone.zip")
