"""Where pictures come from: a folder, one picture, a list, tar shards, or a packed set.

What is a picture is decided by the extension alone; whether it can be read shows when it is
decoded. So nothing a source names is dropped in silence: it becomes an embedding or is listed as
failed.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faceidx.errors import InputError
from faceidx.images.folders import Passed, find_pictures, is_shard_name
from faceidx.images.keys import (
    PICTURE_EXTENSIONS,
    escape_bytes,
    escape_key,
    folder_of,
    is_crop_renamed,
    is_picture_name,
    unescape_key,
)
from faceidx.images.lists import LIST_EXTENSIONS, Entry, read_list
from faceidx.images.packed import is_packed, read_packed
from faceidx.images.pictures import Picture, Pictures
from faceidx.images.shards import named_shards, open_shards
from faceidx.images.spill import Records, Sorter
from faceidx.images.templates import RECORD

__all__ = [
    "PICTURE_EXTENSIONS",
    "Picture",
    "Pictures",
    "Source",
    "escape_key",
    "is_picture_name",
    "open_source",
    "packed_pictures",
    "unescape_key",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What `open_source` found."""

    root: Path
    pictures: Sequence[Picture]
    """In the order of the UTF-8 bytes of their keys; keys are unique. Many are kept on disk."""
    ignored: int
    """Files that are no pictures by name, hidden files included."""


def open_source(
    images: Path,
    *,
    root: Path | None = None,
    follow_links: bool = False,
    spill: Path | None = None,
) -> Source:
    """Find the pictures that `images` stands for.

    - A folder is searched recursively. A picture's identity is its parent folder relative to the
      root, empty for files at the root. Hidden files (`.x`) count as ignored and hidden folders are
      not entered: they hold trash, thumbnails and resource forks (`._x.jpg`). No folder is entered
      twice; where a folder can be reached by its own name and by a link, its own name wins. One
      that holds no picture, but tar shards, stands for these.
    - A picture is a source of one, without identity; its key is its name.
    - A list (`.txt`, `.csv`: see `lists.read_list`) names pictures below its root. Absolute paths
      below the root are welcome. Without a column `identity`, identities are taken from the parent
      folders. A file that does not exist is kept: it fails when it is decoded.
    - Tar shards (see `shards`: one `.tar`, or a name such as `shards/{000..009}.tar`) hold pictures
      under WebDataset's naming.
    - A packed verification set of insightface (see `packed`) holds its pictures, without
      identities; their keys are `0`, `1`, ...

    Args:
        root: for lists only, the folder that paths are relative to; by default the list's own.
        follow_links: enter links to folders too (links to files are always followed).
        spill: folder for the names of pictures that are too many to keep in memory; by default the
            system's folder for temporary files.

    Raises:
        InputError: `images` is missing, unreadable, or none of these; it holds no picture; a list
            is broken, names a picture twice or one outside its root.
        JobError: the names of the pictures do not fit on the disk.
    """
    kind = images.suffix.lower()
    shards = named_shards(images)
    mode = _mode(images) if shards is None else 0
    if root is not None and (stat.S_ISDIR(mode) or kind not in LIST_EXTENSIONS):
        raise InputError(f"{images} is no list of pictures (.txt, .csv); leave out --root")
    if shards is not None:
        pictures, ignored = open_shards(shards, spill)
        return _not_empty(images, Source(root=images, pictures=pictures, ignored=ignored))
    if stat.S_ISDIR(mode):
        return _not_empty(images, _open_folder(images, follow_links, spill))
    if not stat.S_ISREG(mode):
        raise InputError(f"{images} is neither a file nor a folder")
    if kind in LIST_EXTENSIONS:
        listed = _open_list(images, images.parent if root is None else root, spill)
        return _not_empty(images, listed)
    if is_picture_name(images.name):
        picture = Picture(escape_bytes(os.fsencode(images.name)), "", images)
        return Source(root=images.parent, pictures=[picture], ignored=0)
    if is_packed(images):
        packed = read_packed(images)
        numbered = sorted(packed_pictures(images, packed.pictures), key=lambda p: p.key)
        return Source(root=images, pictures=numbered, ignored=0)
    raise InputError(
        f"{images} is no picture by name, no list of pictures (.txt, .csv), no tar shard (.tar), "
        "no packed set (.bin) and no folder; "
        f"pictures end in {', '.join(sorted(PICTURE_EXTENSIONS))}"
    )


def packed_pictures(path: Path, contents: Sequence[bytes]) -> list[Picture]:
    """The pictures of a packed set, named by their numbers."""
    return [Picture(str(n), "", path, content) for n, content in enumerate(contents)]


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {_why(error)}") from None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _not_empty(images: Path, source: Source) -> Source:
    if not source.pictures:
        raise InputError(f"{images} holds no pictures; {source.ignored} files ignored")
    return source


# --- folders -----------------------------------------------------------------------------------


def _open_folder(root: Path, follow_links: bool, spill: Path | None) -> Source:
    passed = Passed()
    sorter = Sorter(spill)
    found = find_pictures(root, follow_links=follow_links, passed=passed)
    sorter.extend(map(str.encode, found))
    if passed.unfollowed:
        logger.warning("%d links to folders were not followed", passed.unfollowed)
    if passed.hidden:
        logger.info("%d hidden folders were not entered", passed.hidden)

    pictures = Pictures(Records(sorter.merged(), spill), partial(_in_folder, root))
    if not pictures and passed.shards:
        return _open_folder_of_shards(root, passed, spill)
    return Source(root=root, pictures=pictures, ignored=passed.ignored)


def _in_folder(root: Path, record: bytes) -> Picture:
    key = record.decode()
    return Picture(key, folder_of(key), root / os.fsdecode(unescape_key(key)))


def _open_folder_of_shards(root: Path, passed: Passed, spill: Path | None) -> Source:
    """A folder in which nothing but tar shards could be meant."""
    shards = sorted(
        (path for path in root.iterdir() if is_shard_name(path.name) and not path.is_dir()),
        key=lambda path: os.fsencode(path.name),
    )
    if not shards:
        raise InputError(
            f"{root} holds no pictures, and {passed.shards} tar files that do not lie in it but "
            "in folders below; give the folder of the shards"
        )
    pictures, beside = open_shards(shards, spill)
    ignored = passed.ignored - len(shards) + beside
    return Source(root=root, pictures=pictures, ignored=ignored)


# --- lists -------------------------------------------------------------------------------------

# A record is key, line, and the identity where the list gives one. No path holds a zero byte, so
# records are sorted by key and then by line.
_LINE = struct.Struct(">Q?")


def _open_list(file: Path, root: Path, spill: Path | None) -> Source:
    if not stat.S_ISDIR(_mode(root)):
        raise InputError(f"{root} is no folder; give --root with the folder of the pictures")
    bases = [_with_slash(base) for base in (root.absolute(), root.resolve())]
    sorter = Sorter(spill)
    named = padded = 0
    for entry in read_list(file):
        raw = _below(entry, bases)
        if raw is None:
            raise InputError(
                f"{file}:{entry.line}: the path leads outside {root}; "
                "give --root with a folder that holds every picture"
            )
        given = entry.identity is not None
        identity = escape_bytes(entry.identity or b"").encode()
        padded += identity != identity.strip()
        line = _LINE.pack(entry.line, given)
        sorter.add(b"%b\0%b%b" % (escape_bytes(raw).encode(), line, identity))
        named += 1
    if padded:
        logger.warning(
            "%s: %d identities begin or end with a blank, which belongs to the name, so they are "
            "others than those without; write `path,identity` without a blank where none is meant",
            file,
            padded,
        )

    records = Records(_pictures_listed_once(file, sorter.merged()), spill)
    pictures = Pictures(records, partial(_on_list, root, (root / RECORD).is_file()))
    return Source(root=root, pictures=pictures, ignored=named - len(pictures))


def _on_list(root: Path, is_aligned: bool, record: bytes) -> Picture:
    key, (_, given), identity = _listed(record)
    path = root / os.fsdecode(unescape_key(key.decode()))
    # A list of the photos names their crops too, of which some have `.png` behind their names.
    if is_aligned and is_crop_renamed(path.name) and not os.path.lexists(path):
        path = path.with_name(f"{path.name}.png")
    return Picture(
        key.decode(),
        identity.decode() if given else folder_of(key.decode()),
        path,
    )


def _listed(record: bytes) -> tuple[bytes, tuple[int, bool], bytes]:
    key, _, rest = record.partition(b"\0")
    return key, _LINE.unpack_from(rest), rest[_LINE.size :]


def _pictures_listed_once(file: Path, records: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out what is no picture by name, and refuse what is listed twice."""
    before, line_before = b"", 0
    twice: tuple[int, int] | None = None
    for record in records:
        key, (line, _), _ = _listed(record)
        if key == before:
            twice = min(twice or (line, line_before), (line, line_before))
        elif twice is None and is_picture_name(key.decode()):
            yield record
        before, line_before = key, line
    if twice is not None:
        raise InputError(f"{file}:{twice[0]}: listed already in line {twice[1]}")


def _below(entry: Entry, bases: Sequence[bytes]) -> bytes | None:
    """Return the path below the root without `.` and `..`, or None where it leads outside."""
    path = os.path.normpath(entry.path)
    if not path.startswith(b"/"):
        return None if path == b".." or path.startswith(b"../") else path
    path = b"/" + path.lstrip(b"/")
    return next((path.removeprefix(base) for base in bases if path.startswith(base)), None)


def _with_slash(folder: Path) -> bytes:
    return os.path.normpath(os.fsencode(folder)).rstrip(b"/") + b"/"
