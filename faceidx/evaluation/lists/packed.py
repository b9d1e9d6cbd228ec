"""insightface's verification sets (`lfw.bin`, `agedb_30.bin`, ...) as lists of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from faceidx.evaluation.lists.lfw import blocks_as_folds
from faceidx.evaluation.lists.pairs import PairList
from faceidx.images.packed import read_packed


def read_packed_pairs(path: Path) -> PairList:
    """Read a `.bin` of insightface: pair k is made of the pictures 2 k and 2 k + 1.

    The keys are `0`, `1`, ...; `pictures` holds the encoded pictures; `lines` are the pairs'
    numbers, from 1. Ten equal blocks of genuine, then impostor pairs are ten folds: LFW's own in
    `lfw.bin`, and what insightface judges.

    Raises:
        InputError: the file is damaged, holds anything else, or would run code.
    """
    packed = read_packed(path)
    genuine = np.array(packed.genuine, dtype=bool)
    left = np.arange(0, len(packed.pictures), 2, dtype=np.int32)
    return PairList(
        path=path,
        format="insightface-bin",
        keys=[str(number) for number in range(len(packed.pictures))],
        left=left,
        right=left + 1,
        genuine=genuine,
        lines=np.arange(1, len(left) + 1, dtype=np.int32),
        folds=blocks_as_folds(genuine),
        pictures=packed.pictures,
    )
