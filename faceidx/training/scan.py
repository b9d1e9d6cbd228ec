"""Who is in the data and how often, before a picture is read: some twenty bytes a picture."""

from __future__ import annotations

import hashlib
import logging
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceidx.errors import InputError
from faceidx.images.keys import escape_key
from faceidx.images.sources import Picture, Source, open_source
from faceidx.training.options import TrainOptions

logger = logging.getLogger(__name__)

NO_IDENTITY = "no identity: it lies in no folder"
FEW_PICTURES = "its identity has fewer than {} pictures"
EMPTY_FOLDER = "an empty identity: no picture in this folder"


@dataclass(kw_only=True)
class Scan:
    """What is known of the pictures of a source from their names alone."""

    source: Source
    people: np.ndarray
    """(N,) int32 number of each picture's identity in `names`; -1 where it has none."""
    names: list[str]
    """Identities, sorted."""
    shards: np.ndarray | None
    """(N,) int32 number of the tar shard that each picture lies in; None for other sources."""
    empty: list[str]
    """Folders that look like identities and hold no picture."""
    digest: str
    """SHA-256 over keys and identities: the same data, or not."""

    def usable(self, least: int) -> np.ndarray:
        """(N,) bool: pictures whose identity is known and has `least` pictures or more."""
        counts = np.bincount(self.people[self.people >= 0], minlength=len(self.names))
        enough = np.append(counts >= least, False)  # the last answers for those without identity
        return enough[self.people]

    def left_out(self, least: int) -> list[tuple[str, str]]:
        """Key and reason of all that is there and not usable."""
        rows = np.flatnonzero(~self.usable(least)).tolist()
        few = FEW_PICTURES.format(least)
        reasons = (NO_IDENTITY if self.people[row] < 0 else few for row in rows)
        keys = (self.source.pictures[row].key for row in rows)
        empty = [(f"{folder}/", EMPTY_FOLDER) for folder in self.empty]
        return [*zip(keys, reasons, strict=True), *empty]


def scan(options: TrainOptions) -> Scan:
    """Find the pictures to train on.

    Raises:
        InputError: nothing usable there.
    """
    source = open_source(options.data, root=options.root, follow_links=options.follow_links)
    people, shards = array("i"), array("i")
    numbers: dict[str, int] = {}
    files: dict[Path, int] = {}
    for p in source.pictures:
        people.append(numbers.setdefault(p.identity, len(numbers)) if p.identity else -1)
        if p.part is not None:
            shards.append(files.setdefault(p.path, len(files)))
    names = sorted(numbers)
    place = np.empty(len(names) + 1, np.int32)
    place[[numbers[name] for name in names]] = np.arange(len(names), dtype=np.int32)
    place[-1] = -1
    found = Scan(
        source=source,
        people=place[np.frombuffer(people, np.int32)],
        names=names,
        shards=np.frombuffer(shards, np.int32) if shards else None,
        empty=[] if shards else _empty_folders(options.data, names),
        digest=digest_of_pictures(source.pictures),
    )
    _check(found, options)
    return found


def digest_of(parts: Iterable[str | bytes]) -> str:
    """SHA-256 over parts, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()


def digest_of_pictures(pictures: Iterable[Picture]) -> str:
    """SHA-256 over keys and identities."""
    return digest_of(text for p in pictures for text in (p.key, p.identity))


def _empty_folders(data: Path, names: list[str]) -> list[str]:
    """Folders directly below the data's that hold no picture, not even farther below."""
    if not data.is_dir():
        return []
    empty = []
    for entry in sorted(data.iterdir()):
        if entry.name.startswith(".") or entry.is_symlink() or not entry.is_dir():
            continue
        key = escape_key(entry.name)
        first = bisect_left(names, key)
        inside = bisect_left(names, f"{key}/")
        if key not in names[first : first + 1] and not (
            inside < len(names) and names[inside].startswith(f"{key}/")
        ):
            empty.append(key)
    return empty


def _check(found: Scan, options: TrainOptions) -> None:
    """Say what is odd about the data, and refuse what cannot be trained on."""
    counts = np.bincount(found.people[found.people >= 0], minlength=len(found.names))
    least = options.min_pictures
    if len(counts) < 2:
        raise InputError(
            f"{options.data}: training needs pictures of two identities or more, a folder each"
        )
    if (counts >= least).sum() < 2:
        raise InputError(
            f"{options.data}: of {len(counts)} identities fewer than two have {least} pictures or "
            "more; give a smaller --min-pictures"
        )
    if found.empty:
        logger.warning("%d folders hold no picture and are no identities", len(found.empty))
    few = counts < least
    if few.any():
        logger.warning(
            "%d identities with fewer than %d pictures are left out, with %d pictures",
            int(few.sum()),
            least,
            int(counts[few].sum()),
        )
    singles = int(((counts == 1) & ~few).sum())
    if singles:
        logger.warning(
            "%d of %d identities have a single picture: they are trained on, but never judged by; "
            "--min-pictures 2 leaves them out",
            singles,
            len(counts),
        )
