"""How sure an AUC over all pairs of a file is: people are what was drawn, not pairs.

With billions of pairs a bootstrap takes too long, and its first order is known in closed form: the
infinitesimal jackknife (Jaeckel, "The infinitesimal jackknife", Bell Laboratories, 1972; Efron,
"The Jackknife, the Bootstrap and Other Resampling Plans", 1982, chapter 6). Give person k the
weight w_k. A genuine pair of k then weighs w_k, an impostor pair of k and l weighs w_k w_l, as in
the draws of `bootstrap.py`. The derivative of the AUC by w_k at weights of 1 is

    U_k = G_k / G (g_k - AUC) + I_k / I (h_k - AUC)

where G_k of G genuine and I_k of I impostor pairs are of k, g_k is the mean share of impostors
that the genuine pairs of k beat, and h_k the mean share of genuine pairs that beat an impostor pair
of k. The variance is the sum of the squares of U_k. (Below it is the shares that are lost that are
counted, which for a good model are small, and so keep their digits: 1 - g_k and 1 - h_k.)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from faceidx.evaluation.counted import LARGEST
from faceidx.evaluation.intervals import Interval, normal_interval
from faceidx.evaluation.roc import Roc, SortedScores, auc
from faceidx.evaluation.scoring import KnownEmbeddings

# h_k is measured against so many pictures, g_k on so many pictures of one person; where there are
# more, they are drawn.
_REFERENCES, _OF_ONE = 1024, 512
_AT_ONCE = 16_384  # pictures read at once for g_k
_ROWS = 512  # pictures multiplied with the references at once
_STEPS = 1 << 15  # shares are looked up by steps of 1 / 2^15


def interval_of_people(
    roc: Roc, known: KnownEmbeddings, people: np.ndarray, *, seed: int
) -> Interval:
    """95 % interval of the AUC over all pairs, for people drawn at random.

    Args:
        roc: the curve of all pairs of rows whose people are known.
        people: (N,) int64 from 0, the person of each row; -1 where unknown.
    """
    rng = np.random.default_rng(seed)
    pictures = np.bincount(people[people >= 0])
    genuine = pictures * (pictures - 1) / 2
    impostor = pictures * (pictures.sum() - pictures).astype(np.float64)
    higher = (1 - _share_below(roc.impostor_scores)).astype(np.float32)
    lower = _share_below(roc.genuine_scores).astype(np.float32)
    influence = _centred(_genuine_means(known, people, higher, rng), genuine) / roc.genuine
    influence += _centred(_impostor_means(known, people, lower, rng), impostor) / roc.impostor
    number = len(pictures)
    variance = number / (number - 1) * float(np.sum(np.square(influence)))
    return normal_interval(auc(roc), variance)


def _genuine_means(
    known: KnownEmbeddings, people: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Mean share over the genuine pairs of each person, (K,); 0 where there is none."""
    means = np.zeros(int(people.max()) + 1)
    for batch in _batches(people, rng):
        rows = np.sort(np.concatenate(list(batch.values())))
        vectors = known.read(rows)
        for person, own in batch.items():
            ours = vectors[np.searchsorted(rows, own)]
            scores = (ours @ ours.T)[np.triu_indices(len(ours), 1)]
            means[person] = np.mean(_looked_up(scores, shares), dtype=np.float64)
    return means


def _batches(people: np.ndarray, rng: np.random.Generator) -> Iterator[dict[int, np.ndarray]]:
    """Yield people with their rows, some of them where there are many, for those who have two."""
    order = np.argsort(people, kind="stable")[np.count_nonzero(people < 0) :]
    ends = np.cumsum(np.bincount(people[order]))
    batch: dict[int, np.ndarray] = {}
    read = 0
    for person, own in enumerate(np.split(order, ends[:-1])):
        if len(own) < 2:
            continue
        batch[person] = own if len(own) <= _OF_ONE else rng.choice(own, _OF_ONE, replace=False)
        read += len(batch[person])
        if read >= _AT_ONCE:
            yield batch
            batch, read = {}, 0
    if batch:
        yield batch


def _impostor_means(
    known: KnownEmbeddings, people: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Mean share over the impostor pairs of each person with the references, (K,)."""
    rows = np.flatnonzero(people >= 0)
    number = min(_REFERENCES, len(rows))
    references = np.sort(rng.choice(rows, number, replace=False))
    theirs = known.read(references)
    sums, pairs = np.zeros((2, int(people.max()) + 1))
    for first in range(0, len(rows), _ROWS):
        own = rows[first : first + _ROWS]
        values = _looked_up(known.read(own) @ theirs.T, shares)
        same = people[own][:, None] == people[references]
        values[same] = 0
        np.add.at(sums, people[own], values.sum(axis=1, dtype=np.float64))
        np.add.at(pairs, people[own], number - np.count_nonzero(same, axis=1))
    return np.divide(sums, pairs, out=np.full_like(sums, sums.sum() / pairs.sum()), where=pairs > 0)


def _centred(means: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Each person's number of pairs times the distance of their mean from that of all."""
    return pairs * (means - np.dot(means, pairs) / pairs.sum())


def _share_below(scores: SortedScores) -> np.ndarray:
    """Share of the scores below the middle of each step, as if they were spread evenly in it."""
    edges = np.arange(-LARGEST, LARGEST + 1 / _STEPS, 1 / _STEPS, dtype=np.float32)
    below = scores.searchsorted(edges, side="left")
    return (below[1:] + below[:-1]) / (2 * len(scores))


def _looked_up(scores: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return shares[((scores + np.float32(LARGEST)) * np.float32(_STEPS)).astype(np.int32)]
