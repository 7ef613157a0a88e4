"""Bundles: a zip of JSON documents that carries a part of an archive from one machine to another.

    manifest.json     format, version, what it holds, judge and device, SHA-256 of every other document
    tasks.json  runs.json  programs.json  candidates.json  proposals.json  verdicts.json  events.json

The same content gives the same bytes. A bundle may come from anybody: nothing in it is unpickled, executed or used as a
path, and whatever is not exactly as described is refused, before more than the limits below was read.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from warpsmith.archive.extract import Extract
from warpsmith.errors import UserError
from warpsmith.files import write_bytes

VERSION = 1
MAX_FILE = 256 << 20
"""Bytes of a bundle."""
MAX_DOCUMENT = 256 << 20
"""Bytes of one document, unpacked."""
MAX_TOTAL = 512 << 20
"""Bytes of all documents, unpacked."""
MAX_ROWS = 100_000
"""Rows of one document."""

_MANIFEST = "manifest.json"
_MAX_MANIFEST = 100_000
_NAMES = tuple(field.name for field in fields(Extract))
_LISTED = b"PK\x01\x02"
"""What every entry in the list of contents of a zip begins with."""
_EPOCH = (1980, 1, 1, 0, 0, 0)

Kind = Literal["candidates", "verdicts"]
_Text = Annotated[str, StringConstraints(max_length=200)]


class Manifest(BaseModel):
    """What a bundle says of itself. `documents` maps names to SHA-256 in hexadecimal digits."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["warpsmith bundle"] = "warpsmith bundle"
    version: Literal[1] = 1
    kind: Kind
    judge_version: _Text
    device: _Text
    documents: dict[_Text, _Text]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Candidates that are to be judged, or that were.

    `device` is the GPU that they are meant for, or were judged on, by a judge of `judge_version`.
    """

    kind: Kind
    judge_version: str
    device: str
    extract: Extract


def write_bundle(file: Path, bundle: Bundle) -> None:
    """Write a bundle in one go. Raises UserError where it is too large to be read, SettingsError where it cannot be."""
    documents = {f"{name}.json": _dump(getattr(bundle.extract, name)) for name in _NAMES}
    for name in _NAMES:
        if len(getattr(bundle.extract, name)) > MAX_ROWS:
            raise UserError(f"more than {MAX_ROWS} {name} for one bundle: bundle one task at a time", file=str(file))
    largest = max(map(len, documents.values()))
    if largest > MAX_DOCUMENT or sum(map(len, documents.values())) > MAX_TOTAL:
        raise UserError("too much for one bundle: bundle one task at a time", file=str(file))
    manifest = Manifest(
        kind=bundle.kind,
        judge_version=bundle.judge_version,
        device=bundle.device,
        documents={name: hashlib.sha256(data).hexdigest() for name, data in documents.items()},
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in {_MANIFEST: manifest.model_dump_json(indent=2).encode(), **documents}.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 6)
    if packed.tell() > MAX_FILE:
        raise UserError("too much for one bundle: bundle one task at a time", file=str(file))
    write_bytes(file, packed.getvalue())


def is_bundle(file: Path) -> bool:
    """Whether a file begins as a zip does."""
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def read_bundle(file: Path) -> Bundle:
    """Read a bundle. Raises UserError naming the file, and what is wrong with it."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise UserError(f"is larger than {MAX_FILE} bytes, the limit of a bundle", file=str(file))
        # The list of contents is read as a whole; a few of its marks may stand in compressed data by chance.
        if data.count(_LISTED) > 2 * len(_NAMES) + 2:
            raise UserError("is no bundle: it holds too many files", file=str(file))
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive, str(file))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", file=str(file)) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # An encrypted entry is a RuntimeError, one of another compression a NotImplementedError.
        raise UserError(f"is no bundle, or was damaged: {error}", file=str(file)) from error


def _read(archive: zipfile.ZipFile, file: str) -> Bundle:
    due = sorted((_MANIFEST, *(f"{name}.json" for name in _NAMES)))
    if sorted(archive.namelist()) != due:
        odd = sorted(set(archive.namelist()) ^ set(due)) or archive.namelist()
        raise UserError(f"is no bundle: it should hold {', '.join(due)} and nothing else, see {odd[0]!r}", file=file)
    manifest = _manifest(_document(archive, _MANIFEST, _MAX_MANIFEST, file), file)
    left = MAX_TOTAL
    rows: dict[str, Any] = {}
    for name in _NAMES:
        document = f"{name}.json"
        data = _document(archive, document, min(MAX_DOCUMENT, left), file)
        left -= len(data)
        if hashlib.sha256(data).hexdigest() != manifest.documents.get(document):
            raise UserError(f"{document} is not what the manifest says: it was changed", file=file)
        rows[name] = _load(name, data, file)
    return Bundle(manifest.kind, manifest.judge_version, manifest.device, Extract(**rows))


def _document(archive: zipfile.ZipFile, name: str, most: int, file: str) -> bytes:
    """Unpack one document, never more of it than `most` bytes, whatever its header says."""
    with archive.open(name) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise UserError(f"{name} unpacks to more than {most} bytes", file=file)
    return data


def _manifest(data: bytes, file: str) -> Manifest:
    try:
        said = json.loads(data)
        version = said.get("version") if isinstance(said, dict) else None
        if isinstance(version, int) and version != VERSION:
            raise UserError(f"is a bundle of version {version}; this Warpsmith reads version {VERSION}", file=file)
        return Manifest.model_validate_json(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"has no manifest that can be read: {_first(error)}", file=file) from error


def _dump(rows: tuple[Any, ...]) -> bytes:
    """Return rows as a JSON list of objects, one on each line."""
    lines = (json.dumps({name: _plain(getattr(row, name)) for name in row.__slots__}, sort_keys=True) for row in rows)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _load(name: str, data: bytes, file: str) -> tuple[Any, ...]:
    try:
        rows = _ADAPTERS[name].validate_json(data, strict=True)
    except ValidationError as error:
        raise UserError(f"{name}.json cannot be read: {_first(error)}", file=file) from error
    if len(rows) > MAX_ROWS:
        raise UserError(f"{name}.json has {len(rows)} rows; {MAX_ROWS} is the limit", file=file)
    for row in rows:
        moment = getattr(row, "added_at", None) or row.started_at
        if moment.tzinfo is None:
            raise UserError(f"{name}.json has a time stamp without a time zone", file=file)
    return tuple(rows)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}".removeprefix(": ")
    return str(error)


_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {name: TypeAdapter(hint) for name, hint in get_type_hints(Extract).items()}
