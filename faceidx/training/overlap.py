"""Pictures that both train and judge: a figure over them says what was learned by heart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from faceidx.images.decode import PictureError, open_bytes
from faceidx.images.pictures import keys_of
from faceidx.images.sources import Picture

_BLOCK = 1 << 20


def also_trained_on(
    judges: Sequence[Picture], *, pictures: Sequence[Picture], trained: np.ndarray
) -> int:
    """How many judges are trained on: the same file, or a copy of it under the same name.

    Names are those of the file and its folder, so that few files are read.

    Args:
        judges: pictures that judge.
        pictures: all pictures of the data to train on.
        trained: rows of those that are trained on.
    """
    named: dict[bytes, list[int]] = defaultdict(list)
    for number, key in enumerate(keys_of(judges)):
        named[_name(key)].append(number)
    is_trained = np.zeros(len(pictures), bool)
    is_trained[trained] = True
    found: set[int] = set()
    for row, key in enumerate(keys_of(pictures)):
        if is_trained[row] and (numbers := named.get(_name(key))):
            found |= {n for n in numbers if n not in found and _is_same(judges[n], pictures[row])}
    return len(found)


def _name(key: bytes) -> bytes:
    return b"/".join(key.split(b"/")[-2:])


def _is_same(one: Picture, other: Picture) -> bool:
    # What cannot be read neither trains nor judges.
    with (
        suppress(OSError, PictureError),
        open_bytes(one.data) as ours,
        open_bytes(other.data) as theirs,
    ):
        while (block := ours.read(_BLOCK)) == theirs.read(_BLOCK):
            if not block:
                return True
    return False
