"""The process that decodes for another one: `workers.py` starts it and is its only caller.

A request is the caller's folder, a `Prepare` and the pictures to make faces of. The reply is three
messages: JSON with an entry a picture, the pixels of all faces, and where they were found. Pixels
that fit into memory that both see lie there, and the JSON says how many bytes. Nothing that comes
back could run code in the caller, whatever a hostile picture made of this process.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

import numpy as np

from faceidx.images.decode import PictureError
from faceidx.images.pictures import Picture
from faceidx.images.prepare import FACE, Prepare, Prepared, WholePicture
from faceidx.shared_memory import memory_seen

READY = b"ready"
# Of processor time, so that a slow disk or a busy machine is never held against a picture. The
# largest pictures that are let in take some five seconds.
SECONDS_A_PICTURE = 60


def serve(descriptor: int) -> None:
    """Answer requests on a socket until its other end is closed."""
    _be_the_first_to_be_killed()
    connection = Connection(descriptor)
    try:
        connection.send_bytes(READY)
        room = memory_seen(recv_handle(connection)) if connection.recv() else np.empty(0, np.uint8)
        _silence()
        while True:
            folder, prepare, pictures = connection.recv()
            os.chdir(folder)
            _reply(connection, _all_prepared(prepare, pictures), room)
    except (EOFError, ConnectionError):
        return


def _be_the_first_to_be_killed() -> None:
    """Where memory runs out, the system shall end this process, not the one with the work."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # not Linux


def _silence() -> None:
    """Decoders written in C print their complaints, which no one could relate to a picture."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _all_prepared(prepare: Prepare, pictures: Sequence[Picture]) -> list[Prepared | str]:
    if not isinstance(prepare, WholePicture) or not prepare.card:
        return [_prepared(prepare, picture) for picture in pictures]
    from faceidx.images.card_jpeg import decode_on_card  # it loads torch

    with _limited(len(pictures)):
        decoded = decode_on_card(
            [picture.data for picture in pictures],
            prepare.card,
            max_pixels=prepare.max_pixels,
            at_least=prepare.at_least,
        )
    return [
        _prepared(prepare, picture) if pixels is None else prepare.of_pixels(pixels)
        for picture, pixels in zip(pictures, decoded, strict=True)
    ]


def _prepared(prepare: Prepare, picture: Picture) -> Prepared | str:
    try:
        with _limited(1):
            return prepare(picture.data)
    except PictureError as error:
        return str(error)
    except MemoryError:
        return "out of memory while decoding"


@contextmanager
def _limited(pictures: int) -> Iterator[None]:
    """When the time is over, SIGPROF ends the process: decoders in C listen to nothing else."""
    signal.setitimer(signal.ITIMER_PROF, pictures * SECONDS_A_PICTURE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _reply(connection: Connection, results: Sequence[Prepared | str], room: np.ndarray) -> None:
    made = [result for result in results if isinstance(result, Prepared)]
    found = [result.faces for result in made if result.faces is not None]
    lines = [
        {"reason": r}
        if isinstance(r, str)
        else {"faces": len(r.crops), "found": r.faces is not None, "far": r.far}
        for r in results
    ]
    crops = [result.crops for result in made]
    shared = _put(crops, room)
    connection.send_bytes(json.dumps({"pictures": lines, "shared": shared}).encode())
    connection.send_bytes(np.concatenate(crops).ravel().data if crops and not shared else b"")
    connection.send_bytes(np.concatenate(found).tobytes() if found else b"")


def _put(crops: Sequence[np.ndarray], room: np.ndarray) -> int:
    """Put all crops into the room; returns how many bytes that are, 0 where they do not fit in."""
    size = sum(crop.nbytes for crop in crops)
    if not 0 < size <= len(room):
        return 0
    np.concatenate(crops, out=room[:size].reshape(-1, *crops[0].shape[1:]))
    return size


def read_reply(
    connection: Connection, pictures: int, size: tuple[int, int], room: np.ndarray
) -> list[Prepared | str]:
    """Read what `_reply` sent: what was made of each picture, or the reason why nothing was.

    Args:
        pictures: that it was asked for.
        size: (height, width) of the faces.
        room: the memory that both see; empty where there is none.

    Raises:
        EOFError, OSError: the worker has died.
        ValueError, TypeError, LookupError, AttributeError: it sent something else.
    """
    told = json.loads(connection.recv_bytes())
    lines, shared = told["pictures"], told["shared"]
    # As they are: a header as NumPy's files have would take longer to read than all of them, and is
    # read by Python's parser, which CPython 3.11 lets fail where several threads use it.
    pixels = np.frombuffer(connection.recv_bytes(), np.uint8)
    if shared:
        pixels = room[:shared].copy()  # the next reply will lie there too
    crops = pixels.reshape(-1, *size, 3)
    found = np.frombuffer(connection.recv_bytes(), FACE)
    results: list[Prepared | str] = []
    row = found_row = 0
    for line in lines:
        if "reason" in line:
            line["reason"].encode()  # it is text, and can be written
            results.append(line["reason"])
            continue
        faces = None
        if line["found"]:
            faces = found[found_row : found_row + line["faces"]]
            found_row += line["faces"]
        results.append(Prepared(crops[row : row + line["faces"]], faces, line["far"]))
        row += line["faces"]
    if (row, found_row) != (len(crops), len(found)):
        raise ValueError("not as many faces as announced")
    if len(results) != pictures:
        raise ValueError("not as many pictures as asked for")
    return results
