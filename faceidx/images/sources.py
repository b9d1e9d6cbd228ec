"""Where pictures come from: a folder, one picture, a list of paths, or a packed set.

What is a picture is decided by the extension alone; whether it can be read shows when it is
decoded. So nothing a source names is dropped in silence: it becomes an embedding or is listed as
failed.
"""

from __future__ import annotations

import heapq
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faceidx.errors import InputError
from faceidx.images.keys import (
    PICTURE_EXTENSIONS,
    escape_bytes,
    escape_key,
    is_picture_name,
    unescape_key,
)
from faceidx.images.lists import LIST_EXTENSIONS, Entry, read_list
from faceidx.images.packed import is_packed, read_packed

__all__ = [
    "PICTURE_EXTENSIONS",
    "Picture",
    "Source",
    "escape_key",
    "is_picture_name",
    "open_source",
    "packed_pictures",
    "unescape_key",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a source."""

    key: str
    """Path relative to the source, `/`-separated and escaped (`escape_key`)."""
    identity: str
    """Who it shows, escaped like the key; empty where unknown."""
    path: Path
    """Where the bytes lie: the source's root joined with the unescaped key; of a picture out of a
    packed set, the set."""
    content: bytes | None = None
    """The bytes themselves, where they were read already."""

    @property
    def data(self) -> Path | bytes:
        """The bytes, or the file that holds nothing else: what `decode` takes."""
        return self.path if self.content is None else self.content


@dataclass(frozen=True, kw_only=True)
class Source:
    """What `open_source` found."""

    root: Path
    pictures: list[Picture]
    """In the order of the UTF-8 bytes of their keys; keys are unique."""
    ignored: int
    """Files that are no pictures by name, hidden files included."""


def open_source(images: Path, *, root: Path | None = None, follow_links: bool = False) -> Source:
    """Find the pictures that `images` stands for.

    - A folder is searched recursively. A picture's identity is its parent folder relative to the
      root, empty for files at the root. Hidden files (`.x`) count as ignored and hidden folders are
      not entered: they hold trash, thumbnails and resource forks (`._x.jpg`). No folder is entered
      twice; where a folder can be reached by its own name and by a link, its own name wins.
    - A picture is a source of one, without identity; its key is its name.
    - A list (`.txt`, `.csv`: see `lists.read_list`) names pictures below its root. Absolute paths
      below the root are welcome. Without a column `identity`, identities are taken from the parent
      folders. A file that does not exist is kept: it fails when it is decoded.
    - A packed verification set of insightface (see `packed`) holds its pictures, without
      identities; their keys are `0`, `1`, ...

    Args:
        root: for lists only, the folder that paths are relative to; by default the list's own.
        follow_links: enter links to folders too (links to files are always followed).

    Raises:
        InputError: `images` is missing, unreadable, or none of these; it holds no picture; a list
            is broken, names a picture twice or one outside its root.
    """
    mode = _mode(images)
    kind = images.suffix.lower()
    if root is not None and (stat.S_ISDIR(mode) or kind not in LIST_EXTENSIONS):
        raise InputError(f"{images} is no list of pictures (.txt, .csv); leave out --root")
    if stat.S_ISDIR(mode):
        return _open_folder(images, follow_links)
    if not stat.S_ISREG(mode):
        raise InputError(f"{images} is neither a file nor a folder")
    if kind in LIST_EXTENSIONS:
        return _open_list(images, images.parent if root is None else root)
    if is_picture_name(images.name):
        picture = Picture(escape_bytes(os.fsencode(images.name)), "", images)
        return Source(root=images.parent, pictures=[picture], ignored=0)
    if is_packed(images):
        packed = read_packed(images)
        return _whole(images, images, packed_pictures(images, packed.pictures), 0)
    raise InputError(
        f"{images} is no picture by name, no list of pictures (.txt, .csv), no packed set (.bin) "
        "and no folder; "
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


def _parent(key: str) -> str:
    return key.rpartition("/")[0]


def _whole(images: Path, root: Path, pictures: list[Picture], ignored: int) -> Source:
    if not pictures:
        raise InputError(f"{images} holds no pictures; {ignored} files ignored")
    # Keys hold no surrogates, so the order of their code points is that of their UTF-8 bytes.
    pictures.sort(key=lambda picture: picture.key)
    return Source(root=root, pictures=pictures, ignored=ignored)


# --- folders -----------------------------------------------------------------------------------


def _open_folder(root: Path, follow_links: bool) -> Source:
    pictures: list[Picture] = []
    ignored = hidden = unfollowed = 0
    # Folders waiting to be read, as (key of the folder with a `/` at its end, path). Links wait
    # until all real folders are read, so that a folder is found under its own name first; a heap
    # keeps their order the same everywhere.
    folders, links = [("", os.fspath(root))], list[tuple[str, str]]()
    entered: set[tuple[int, int]] = set()
    while folders or links:
        prefix, folder = folders.pop() if folders else heapq.heappop(links)
        if follow_links and not _first_visit(folder, entered):
            continue
        for entry in _entries(folder, is_root=not prefix):
            key = prefix + escape_bytes(os.fsencode(entry.name))
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    hidden += 1
                else:
                    folders.append((f"{key}/", entry.path))
            elif entry.is_symlink() and _is_folder(entry):
                if follow_links and not entry.name.startswith("."):
                    heapq.heappush(links, (f"{key}/", entry.path))
                else:
                    unfollowed += 1
            elif entry.name.startswith(".") or not is_picture_name(entry.name):
                ignored += 1
            else:
                pictures.append(Picture(key, _parent(key), Path(entry.path)))
    if unfollowed:
        logger.warning("%d links to folders were not followed", unfollowed)
    if hidden:
        logger.info("%d hidden folders were not entered", hidden)
    return _whole(root, root, pictures, ignored)


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


def _entries(folder: str, *, is_root: bool) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not is_root:
            return []  # removed since its parent was read
        raise InputError(f"{folder} cannot be read: {_why(error)}") from None
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {_why(error)}") from None


def _is_folder(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_dir()
    except OSError:
        return False  # a circle of links: a picture by name still fails when decoded


# --- lists -------------------------------------------------------------------------------------


def _open_list(file: Path, root: Path) -> Source:
    if not stat.S_ISDIR(_mode(root)):
        raise InputError(f"{root} is no folder; give --root with the folder of the pictures")
    bases = [_with_slash(base) for base in (root.absolute(), root.resolve())]
    pictures: list[Picture] = []
    lines: dict[str, int] = {}
    ignored = 0
    for entry in read_list(file):
        raw = _below(entry, bases)
        if raw is None:
            raise InputError(
                f"{file}:{entry.line}: the path leads outside {root}; "
                "give --root with a folder that holds every picture"
            )
        key = escape_bytes(raw)
        if lines.setdefault(key, entry.line) != entry.line:
            raise InputError(f"{file}:{entry.line}: listed already in line {lines[key]}")
        if not is_picture_name(key):
            ignored += 1
            continue
        identity = _parent(key) if entry.identity is None else escape_bytes(entry.identity)
        pictures.append(Picture(key, identity, root / os.fsdecode(raw)))
    return _whole(file, root, pictures, ignored)


def _below(entry: Entry, bases: Sequence[bytes]) -> bytes | None:
    """Return the path below the root without `.` and `..`, or None where it leads outside."""
    path = os.path.normpath(entry.path)
    if not path.startswith(b"/"):
        return None if path == b".." or path.startswith(b"../") else path
    path = b"/" + path.lstrip(b"/")
    return next((path.removeprefix(base) for base in bases if path.startswith(base)), None)


def _with_slash(folder: Path) -> bytes:
    return os.path.normpath(os.fsencode(folder)).rstrip(b"/") + b"/"
