"""The detector file: where it lies on this machine, and how it gets there."""

from __future__ import annotations

import http.client
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from faceidx.errors import InputError, JobError
from faceidx.files import FOLDER_MODE, sha256_file, sync, whole_file, writer_lock
from faceidx.images.detect import Detector, open_detector
from faceidx.progress import Progress, ProgressCallback, silent

_BLOCK = 1 << 16
_PATIENCE = 30.0
"""Seconds without a byte after which a server is given up."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file that others publish, and what it must be."""

    name: str
    url: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


YUNET = Published(
    name="yunet",
    url="https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
    "face_detection_yunet_2023mar.onnx",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    size=232_589,
)
PUBLISHED = {YUNET.name: YUNET}


def cached_file(published: Published) -> Path:
    """Where a published file lies, or would lie, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(cache) if cache else Path.home() / ".cache"
    return folder / "faceidx" / published.file_name


def find_detector(given: Path | None) -> Detector:
    """The detector of a file that is given, else of the one in the user's cache.

    Raises:
        InputError: there is none, or it is none; a file in the cache must be the published one.
    """
    if given is not None:
        return open_detector(given)
    path = cached_file(YUNET)
    if not path.is_file():
        raise InputError(
            f"no face detector: {path} is missing; `faceidx models get {YUNET.name}` fetches it, "
            "or give --detector FILE"
        )
    detector = open_detector(path)
    if detector.sha256 != YUNET.sha256:
        raise InputError(
            f"{path} is not the published file (SHA-256 {detector.sha256}, not {YUNET.sha256}); "
            f"remove it and run `faceidx models get {YUNET.name}`, or give it as --detector FILE"
        )
    return detector


def detector_for(mode: str, given: Path | None) -> Detector | None:
    """The detector that a mode of `--detect` needs; None where it needs none.

    `auto` takes the one in the cache where there is one, and does without where there is none.

    Raises:
        InputError: as `find_detector`; or OpenCV is missing.
    """
    if mode == "none" and given is None:
        return None
    if mode == "auto" and given is None and not cached_file(YUNET).is_file():
        return None
    require_opencv()
    return find_detector(given)


def require_opencv() -> None:
    """Raise `InputError` where OpenCV is not installed."""
    if importlib.util.find_spec("cv2") is None:
        raise InputError("faces are found with the extra detect: pip install 'faceidx[detect]'")


def fetch(
    published: Published, *, url: str | None = None, progress: ProgressCallback = silent
) -> tuple[Path, bool]:
    """Fetch a published file into the user's cache, going on where an earlier try was cut off.

    The system's proxy settings (`https_proxy` and the like) are followed.

    Args:
        url: another place that holds the same file.

    Returns:
        The file, and whether it had to be fetched.

    Raises:
        InputError: the URL is none that can be fetched.
        JobError: the server cannot be reached, or what it sends is another file.
    """
    path, url = cached_file(published), url or published.url
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{url!r} is no http or https address")
    try:
        path.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made: {error.strerror}") from None
    with writer_lock(path):
        if path.is_file() and sha256_file(path) == published.sha256:
            return path, False
        part = path.with_name(f"{path.name}.part")
        if not (part.is_file() and sha256_file(part) == published.sha256):
            _download(url, part, published, progress)
        _check(part, url, published)
        with whole_file(path) as temporary:
            part.replace(temporary)
    return path, True


def _download(url: str, part: Path, published: Published, progress: ProgressCallback) -> None:
    begun = part.stat().st_size if part.is_file() else 0
    begun = begun if begun < published.size else 0
    with (
        _answers(url, part, begun) as (answer, goes_on),
        part.open("ab" if goes_on else "wb") as file,
    ):
        done = begun if goes_on else 0
        # One byte more than there should be is enough to know that it is another file.
        while block := answer.read(min(_BLOCK, published.size + 1 - done)):
            file.write(block)
            done += len(block)
            progress(Progress(f"get {published.name}", done, published.size, "bytes"))
    sync(part)
    if done < published.size:
        raise JobError(
            f"{url}: the connection ended after {done} of {published.size} bytes; run the same "
            "command again to go on"
        )


@contextmanager
def _answers(url: str, part: Path, begun: int) -> Iterator[tuple[IO[bytes], bool]]:
    """The server's answer, and whether it goes on where the part, of so many bytes, ends."""
    headers = {"User-Agent": "faceidx", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        # An opener of its own: `urlopen` keeps to the proxies of its first call.
        with urllib.request.build_opener().open(request, timeout=_PATIENCE) as answer:
            began = f"bytes {begun}-"
            yield answer, answer.status == 206 and _range(answer).startswith(began)
    except urllib.error.HTTPError as error:
        raise JobError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        begun = part.stat().st_size if part.is_file() else 0
        kept = f"The {begun} bytes that were fetched are kept. " if begun else ""
        raise JobError(
            f"{url} cannot be fetched: {reason}; is this machine online? {kept}"
            "A file that was brought here some other way is given as --detector FILE"
        ) from None


def _range(answer: http.client.HTTPResponse) -> str:
    return answer.headers.get("Content-Range", "")


def _check(part: Path, url: str, published: Published) -> None:
    found = sha256_file(part)
    if found != published.sha256:
        part.unlink()
        raise JobError(
            f"{url} is not {published.file_name}: its SHA-256 is {found}, not {published.sha256}; "
            "nothing of it was kept"
        )
