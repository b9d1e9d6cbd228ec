"""The first faces of a job, on which engines and precisions are tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepare
from faceidx.images.workers import Workers

# Pictures that may be decoded to find them.
_MOST = 256


def first_faces(pictures: Sequence[Picture], prepare: Prepare, count: int) -> np.ndarray:
    """Some of the first faces, (n, height, width, 3) uint8 RGB; n is `count` or less."""
    crops: list[np.ndarray] = []
    with Workers() as workers:
        tagged = ((None, picture) for picture in pictures[:_MOST])
        for _, _, result in workers.prepare(tagged, prepare, ahead=count, total=count):
            if not isinstance(result, str):
                crops += list(result.crops)
            if len(crops) >= count:
                break
    height, width = prepare.size
    return np.stack(crops[:count]) if crops else np.empty((0, height, width, 3), np.uint8)
