"""Writing files so that they appear whole or not at all, readable by their owner only."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from faceidx.errors import InputError, JobError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_TEMPORARY = ".faceidx-tmp-"
_TOKEN = 12
_TAIL = 80
_HASH = 16
_REMOVERS = 8


def refuse_existing(path: Path, *, overwrite: bool, way_out: str = "--overwrite") -> None:
    """Raise `InputError` when `path` exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; give {way_out} to replace it")


def require_parent(path: Path) -> None:
    """Raise `InputError` when the folder that is to hold `path` is missing or cannot be written."""
    parent = path.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{path}: the folder {parent} does not exist; create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the folder {parent} cannot be written to")


def where_it_leads(path: Path) -> Path:
    """The path itself, or of a link what it leads to, whether or not that is there.

    Raises:
        InputError: the link leads back to itself.
    """
    if goes_in_a_circle(path):
        raise InputError(f"{path} is a link that leads nowhere; remove it")
    return path.resolve() if path.is_symlink() else path


def goes_in_a_circle(path: Path) -> bool:
    """Whether a link, of the path or of a folder on it, leads back to itself."""
    try:
        os.stat(path)  # noqa: PTH116 - Python's versions differ in what `Path` makes of circles
    except OSError as error:
        return error.errno == errno.ELOOP
    except ValueError:  # a NUL
        return False
    return False


def cache_folder() -> Path | None:
    """The user's folder of what can be made again, None where there can be none.

    It is `$XDG_CACHE_HOME/faceidx`, by default `~/.cache/faceidx`, for the owner only.
    """
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "faceidx"
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written to
        return None
    return folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    When the block raises, the temporary file is removed and `path` is as it was. A link stays, and
    what it leads to is written.

    Raises:
        InputError: the folder is missing or read-only, or `path` is a device or a pipe.
        JobError: the disk is full or failed while writing.
    """
    path = where_it_leads(path)
    require_parent(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe; give the path of a file")
    temporary = _beside(path)

    def appear() -> None:
        temporary.replace(path)
        sync(path.absolute().parent)

    with ExitStack() as clearing, _said_of(path):
        clearing.callback(temporary.unlink, missing_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
        yield temporary
        sync(temporary)
        temporary.chmod(FILE_MODE)
        _now_or_together(path, appear, clearing)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path` in one step.

    An existing folder is exchanged for the new one (on Linux atomically: a reader sees the old one
    or the new one, never a mixture) and then removed. A link to a folder stays, and what it leads
    to is exchanged.

    Raises:
        InputError: the parent folder is missing, or one of the two is read-only.
        JobError: the disk is full or failed while writing.
    """
    path = where_it_leads(path)
    require_parent(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give the path of a folder")
    if path.exists() and not os.access(path, os.W_OK | os.X_OK):
        # Exchanged it could be, but not emptied: what it held would stay in a hidden folder.
        raise InputError(f"{path} is read-only, so that it cannot be replaced")
    temporary = _beside(path)

    def appear() -> None:
        take_the_place(temporary, path)
        sync(path.absolute().parent)

    with ExitStack() as clearing, _said_of(path):
        clearing.callback(shutil.rmtree, temporary, ignore_errors=True)
        temporary.mkdir(FOLDER_MODE)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            file.chmod(FOLDER_MODE if file.is_dir() else FILE_MODE)
            sync(file)
        sync(temporary)
        _now_or_together(path, appear, clearing)


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(f"{path} could not be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Together:
    appearing: list[tuple[Path, Callable[[], None]]] = field(default_factory=list)
    clearing: ExitStack = field(default_factory=ExitStack)


_together: ContextVar[_Together | None] = ContextVar("together", default=None)


@contextmanager
def together(*outputs: Path | None) -> Iterator[None]:
    """Have whole files and folders of the block appear when it ends, one right after another.

    Where it raises, or is killed, there is none of them, and the same command can be run again.
    Locks that are taken in it are held as long.

    Args:
        outputs: that no other process may write meanwhile, and whose leftovers are cleared.

    Raises:
        InputError: another process is writing one of them now.
    """
    all_of_it = _Together()
    with all_of_it.clearing as clearing:
        for output in outputs:
            if output is not None:
                clearing.enter_context(writer_lock(output))
                remove_leftovers(output)
        token = _together.set(all_of_it)
        try:
            yield
        finally:
            _together.reset(token)
        for path, appear in all_of_it.appearing:
            with _said_of(path):
                appear()


def _now_or_together(path: Path, appear: Callable[[], None], clearing: ExitStack) -> None:
    all_of_it = _together.get()
    if all_of_it is None:
        appear()
        return
    all_of_it.appearing.append((path, appear))
    all_of_it.clearing.enter_context(clearing.pop_all())


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` that is removed at the end.

    Raises:
        JobError: there can be none.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir(FOLDER_MODE)
    except OSError as error:
        raise JobError(f"{path}: no folder beside it ({error.strerror or error})") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path, *, beside: Path) -> None:
    """Delete a folder, which is gone in one step for whoever looks.

    Args:
        beside: in the same folder; what a kill leaves goes with its leftovers.
    """
    if folder.is_symlink():  # to where there is more room
        _delete(folder.resolve())
        folder.unlink()
        return
    aside = _beside(beside)
    folder.rename(aside)
    _delete(aside)


def _delete(folder: Path) -> None:
    """Delete a folder with all that is in it, as far as that can be."""
    with ThreadPoolExecutor(_REMOVERS) as removers:  # a large file takes a while
        removers.map(os.unlink, list(folder.iterdir()))  # it is not asked what became of each
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files and folders that killed writers of `path` left beside it.

    To be called under `writer_lock(path)`, where no other writer can be at work on one of them.
    """
    path = where_it_leads(path)
    for entry in path.absolute().parent.iterdir():
        token = entry.name.removeprefix(_TEMPORARY)[:_TOKEN]
        if entry.name == f"{_TEMPORARY}{token}-{_tail(path)}":
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that a killed writer left."""
    return name.startswith(_TEMPORARY)


def _beside(path: Path) -> Path:
    return path.with_name(f"{_TEMPORARY}{secrets.token_hex(_TOKEN // 2)}-{_tail(path)}")


def _tail(path: Path) -> str:
    """A file's name, or so much of its end that there is room for more before it (255 bytes)."""
    name = os.fsencode(path.name)
    if len(name) <= _TAIL:
        return path.name
    whole = hashlib.sha256(name).hexdigest()[:_HASH]  # names may differ in their beginning alone
    return whole + name[_HASH - _TAIL :].decode("utf-8", "ignore")


def take_the_place(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        # Without an exchanging rename there is a moment with no folder at all, never a mixed one.
        aside = _beside(target)
        target.rename(aside)
        new.rename(target)
        shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically with Linux's renameat2; False where the system has no such call."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    at_cwd, rename_exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: linux/fcntl.h, linux/fs.h
    result = libc.renameat2(
        at_cwd, os.fsencode(one.absolute()), at_cwd, os.fsencode(other.absolute()), rename_exchange
    )
    return bool(result == 0)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writer_lock(target: Path) -> Iterator[None]:
    """Hold the one writer's lock of `target` (a lock file beside it) for the length of the block.

    Raises:
        InputError: another process is writing `target` now.
    """
    target = where_it_leads(target)
    require_parent(target)
    lock = target.with_name(f".{_tail(target)}.lock")
    descriptor = _locked(lock)
    if descriptor is None:
        raise InputError(f"{target} is being written by another process; wait until it ends")
    with ExitStack() as clearing:
        clearing.callback(os.close, descriptor)
        clearing.callback(lock.unlink, missing_ok=True)
        yield
        if all_of_it := _together.get():
            all_of_it.clearing.enter_context(clearing.pop_all())


def _locked(lock: Path) -> int | None:
    """Descriptor of the lock file, locked, or None where another process holds it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file between our opening and locking it.
            if lock.exists() and os.fstat(descriptor).st_ino == lock.stat().st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
