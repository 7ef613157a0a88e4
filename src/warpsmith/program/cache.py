"""Builds on disk: one file each, named by hash, written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
import zlib
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from warpsmith.errors import SettingsError
from warpsmith.records import Build, Diagnostic, KernelResources

_MAGIC = b"warpsmith build 1\n"


class BuildCache:
    """A folder of builds, shared by any number of processes.

    An entry is a magic line, the SHA-256 of the rest, and the rest compressed: the full identity of what was built
    (so that two programs whose short keys collide are told apart), what the compiler said, PTX and cubin. An entry
    that is cut short, altered or of another format reads as missing. Raises SettingsError if the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"builds cannot be kept in {folder}: {error.strerror}") from error

    def lock(self, key: str) -> FileLock:
        """Return the lock under which `key` is looked up and built; some keys share one."""
        return FileLock(self._folder / "locks" / f"{key[:2]}.lock")

    def path(self, key: str) -> Path:
        """Where the build called `key` lies."""
        return self._folder / key[:2] / f"{key}.build"

    def load(self, key: str, identity: str) -> Build | None:
        """Return the build, or None if there is no sound entry for exactly this identity."""
        try:
            data = self.path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None
        return _decode(data, identity)

    def store(self, build: Build, identity: str) -> None:
        """Write the build; a reader sees all of it or nothing."""
        path = self.path(build.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_encode(build, identity))
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise


def _encode(build: Build, identity: str) -> bytes:
    fields = asdict(build)
    ptx, cubin = fields.pop("ptx").encode(), fields.pop("cubin")
    head = json.dumps({"identity": identity, "build": fields, "ptx": len(ptx)}).encode()
    body = zlib.compress(struct.pack(">Q", len(head)) + head + ptx + cubin, 1)
    return _MAGIC + hashlib.sha256(body).digest() + body


def _decode(data: bytes, identity: str) -> Build | None:
    prefix = len(_MAGIC) + 32
    checksum, body = data[len(_MAGIC) : prefix], data[prefix:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != checksum:
        return None
    content = zlib.decompress(body)
    (length,) = struct.unpack(">Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    if head["identity"] != identity:
        return None
    blobs = content[8 + length :]
    fields = head["build"]
    return Build(
        key=fields["key"],
        architecture=fields["architecture"],
        ok=fields["ok"],
        ptx=blobs[: head["ptx"]].decode(),
        cubin=blobs[head["ptx"] :],
        resources=tuple(KernelResources(**resource) for resource in fields["resources"]),
        diagnostics=tuple(Diagnostic(**diagnostic) for diagnostic in fields["diagnostics"]),
        seconds=fields["seconds"],
    )
