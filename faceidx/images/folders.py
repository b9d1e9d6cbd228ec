"""The pictures below a folder, found one by one: memory does not grow with their number."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faceidx.errors import InputError
from faceidx.images.keys import escape_bytes, is_picture_name

# Folders inside one another that are read side by side; deeper ones are read whole, so that
# descriptors do not run out.
_OPEN_AT_ONCE = 64


@dataclass(kw_only=True)
class Passed:
    """What a search passed over."""

    ignored: int = 0
    """Files that are no pictures by name, hidden ones included."""
    hidden: int = 0
    """Folders that were not entered."""
    unfollowed: int = 0
    """Links to folders."""
    shards: int = 0
    """Tar files among the ignored."""


def find_pictures(root: Path, *, follow_links: bool, passed: Passed) -> Iterator[str]:
    """Yield the keys of all pictures below a folder, in no order; what is passed over is counted.

    Raises:
        InputError: a folder cannot be read.
    """
    # Links wait until all real folders are read, so that a folder is found under its own name
    # first; a heap keeps their order the same everywhere.
    links = [("", os.fspath(root))]
    entered: set[tuple[int, int]] = set()
    while links:
        # Real folders inside one another, as (key with a `/` at its end, entries still to come).
        prefix, folder = heapq.heappop(links)
        if follow_links and not _first_visit(folder, entered):
            continue
        stack = [(prefix, _entries(folder, is_root=not prefix))]
        while stack:
            prefix, entries = stack[-1]
            for entry in entries:
                name = entry.name
                key = prefix + (name if _is_plain(name) else escape_bytes(os.fsencode(name)))
                hidden = name.startswith(".")
                if entry.is_file(follow_symlinks=False) or not _is_folder(entry):
                    if hidden or not is_picture_name(key):
                        passed.ignored += 1
                        passed.shards += is_shard_name(name)
                    else:
                        yield key
                elif entry.is_symlink():
                    if follow_links and not hidden:
                        heapq.heappush(links, (f"{key}/", entry.path))
                    else:
                        passed.unfollowed += 1
                elif hidden:
                    passed.hidden += 1
                elif not follow_links or _first_visit(entry.path, entered):
                    whole = len(stack) >= _OPEN_AT_ONCE
                    stack.append((f"{key}/", _entries(entry.path, whole=whole)))
                    break
            else:
                stack.pop()


def require_elsewhere(path: Path, images: Path) -> None:
    """Raise `InputError` where pictures written to a path would be found among those to read."""
    inside = path.resolve()
    if not (images.is_dir() and inside.is_relative_to(images.resolve())):
        return
    parts = inside.relative_to(images.resolve()).parts
    if not any(part.startswith(".") for part in parts):  # hidden ones are not looked at
        raise InputError(
            f"{path} lies in {images}: what is written there would count among its pictures the "
            "next time; give a path outside"
        )


def _first_visit(folder: str, entered: set[tuple[int, int]]) -> bool:
    try:
        status = Path(folder).stat()
    except OSError:
        return True  # reading it says what is wrong
    place = (status.st_dev, status.st_ino)
    if place in entered:
        return False
    entered.add(place)
    return True


def _entries(
    folder: str, *, is_root: bool = False, whole: bool = False
) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            if not whole:
                yield from entries
                return
            held = list(entries)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not is_root:
            return  # removed since its parent was read
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from None
    yield from held


def is_shard_name(name: str) -> bool:
    """Whether a file in a folder is a tar shard by its name."""
    return name.lower().endswith(".tar") and not name.startswith(".")


def _is_plain(name: str) -> bool:
    """Whether a name is its own key, as nearly all are."""
    return name.isascii() and "%" not in name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a circle of links: a picture by name still fails when decoded
