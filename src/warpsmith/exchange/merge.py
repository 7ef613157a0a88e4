"""`archive merge`: take in a bundle, or all of another archive."""

from __future__ import annotations

from pathlib import Path

from warpsmith.archive import Archive
from warpsmith.archive.extract import extract_all
from warpsmith.archive.merge import Merged, absorb
from warpsmith.exchange.package import is_bundle, read_bundle


def merge(archive_url: str | Path, source: str | Path) -> Merged:
    """Add to an archive, which is made if need be, what a bundle or another archive holds and it does not.

    `source` is a file or the URL of a database. Verdicts keep the version of their judge and their device, so those of
    one machine never pass for those of another. Merging twice changes nothing. Either all is added or, where something
    is wrong, nothing. Raises UserError where the source can be neither; ArchiveError names the key under which it says
    something else than the archive, or than the key itself.
    """
    if "://" not in str(source) and is_bundle(Path(source)):
        extracts = [read_bundle(Path(source)).extract]
        with Archive.open(archive_url) as archive:
            return absorb(archive, extracts)
    with Archive.open(source, create=False) as other, Archive.open(archive_url) as archive:
        return absorb(archive, extract_all(other))
