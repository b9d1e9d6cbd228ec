"""Which pictures train, which judge. Nobody whose pairs judge the embedding is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# With fewer people than this whose pictures make pairs, holding whole people out would cost too
# much of the training set.
_PEOPLE_TO_SPARE = 20
# So many times what people have on average is no lion's share of the pictures.
_USUAL = 2
# Fewer people held out have too few pairs to tell one epoch from another.
_LEAST_HELD_OUT = 4
# A person must have this many pictures for one to be held out.
_PICTURES_TO_SPARE = 3
# Pictures in shards are shuffled among so many: as aligned faces go, a gigabyte, which the system
# can keep in memory. Far more people than a batch has are among them, whatever the shards' order.
WINDOW = 100_000

SAMPLINGS = ("natural", "balanced")


@dataclass(kw_only=True)
class Split:
    """Row numbers of one set of labelled pictures, each sorted."""

    train: np.ndarray
    classify: np.ndarray
    """Held-out pictures of people who are trained on: for the classifier's accuracy."""
    verify: np.ndarray
    """Pictures whose pairs judge the embedding: of people held out whole, or, where there are too
    few people to spare any, the same as `classify`."""


def split_pictures(
    labels: np.ndarray, share: float, seed: int, strangers: np.ndarray | None = None
) -> Split:
    """Split a labelled set, the same way for the same seed.

    Half of the share goes to people held out whole, half to single pictures of the others.

    Args:
        labels: (N,) a number a person.
        share: of all pictures to hold out, 0 to below 1.
        strangers: people whom a kept classifier does not know: they are the ones held out. None
            where there is no such classifier.
    """
    rng = np.random.default_rng(seed)
    # Drawn even where they stay: the training that the classifier is from drew them, and after
    # them the single pictures, which it then was not trained on.
    drawn = _people_to_hold_out(labels, share, rng)
    held_out = drawn if strangers is None else strangers
    verify = np.flatnonzero(np.isin(labels, held_out))
    rest = np.flatnonzero(~np.isin(labels, held_out))
    wanted = round(len(rest) * share / (2 if len(held_out) else 1))
    # Where the same pictures are to be verified, two of a person make a genuine pair.
    classify = _in_turn(labels, rest, wanted, 1 if len(held_out) else 2, rng)
    train = np.setdiff1d(rest, classify)
    return Split(train=train, classify=classify, verify=verify if len(held_out) else classify)


def _people_to_hold_out(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    people, counts = np.unique(labels, return_counts=True)
    if (counts >= 2).sum() < _PEOPLE_TO_SPARE or not share:
        return people[:0]
    # One who has more pictures than are to be held out in all stays: the training set would lose
    # what it is made of.
    most = max(len(labels) * share, _USUAL * counts.mean())
    with_pairs: np.ndarray = rng.permutation(people[(counts >= 2) & (counts <= most)])
    return with_pairs[: max(_LEAST_HELD_OUT, round(len(with_pairs) * share / 2))]


def _in_turn(
    labels: np.ndarray, rows: np.ndarray, wanted: int, at_once: int, rng: np.random.Generator
) -> np.ndarray:
    """Take up to `wanted` rows, `at_once` a person and round, from people with enough of them."""
    taken: list[int] = []
    by_person = rows[np.argsort(labels[rows], kind="stable")]
    firsts = np.flatnonzero(np.diff(labels[by_person]) != 0) + 1
    each = np.split(by_person, firsts) if len(rows) else []
    pools = [rng.permutation(person) for person in each]
    left = [len(pool) for pool in pools]
    open_pools = rng.permutation(len(pools)).tolist()
    while len(taken) < wanted:
        open_pools = [i for i in open_pools if left[i] >= _PICTURES_TO_SPARE + at_once - 1]
        if not open_pools:
            break
        for i in open_pools[: -(-(wanted - len(taken)) // at_once)]:
            left[i] -= at_once
            taken += pools[i][left[i] : left[i] + at_once][::-1].tolist()
    return np.sort(np.asarray(taken, dtype=np.int64))


def epoch_order(
    labels: np.ndarray,
    sampling: str,
    rng: np.random.Generator,
    shards: np.ndarray | None = None,
) -> np.ndarray:
    """Order the training pictures for an epoch.

    Args:
        labels: (N,) class of each picture.
        sampling: one of `SAMPLINGS`. `natural` takes each picture once; `balanced` draws N times,
            an identity at random and one of its pictures in turn, so that people with many pictures
            do not outweigh the others.
        shards: (N,) file that each picture lies in together with others, where they lie so. Of more
            pictures than `WINDOW` the files are then shuffled, and the pictures of neighbouring
            ones among each other, so that files can be read from end to end.

    Returns:
        (N,) places in `labels`.
    """
    if sampling == "natural":
        if shards is not None and len(shards) > WINDOW:
            return _by_windows(shards, rng)
        return rng.permutation(len(labels))
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class], prepend=-1))
    sizes = np.diff(starts, append=len(labels))
    rounds = -(-len(labels) // len(starts))
    drawn = np.concatenate([rng.permutation(len(starts)) for _ in range(rounds)])[: len(labels)]
    # Each identity's pictures come in an order of their own, from the start again when used up.
    turns = np.empty(len(drawn), dtype=np.int64)
    seen = np.argsort(drawn, kind="stable")
    firsts = np.flatnonzero(np.diff(drawn[seen], prepend=-1))
    turns[seen] = np.arange(len(drawn)) - np.repeat(firsts, np.diff(firsts, append=len(drawn)))
    shuffled = by_class[np.lexsort((rng.random(len(labels)), labels[by_class]))]
    order: np.ndarray = shuffled[starts[drawn] + turns % sizes[drawn]]
    return order


def _by_windows(shards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    counts = np.bincount(shards)
    order = rng.permutation(len(counts))
    window_of = np.empty(len(counts), np.int64)
    window_of[order] = (np.cumsum(counts[order]) - 1) // WINDOW
    mixed: np.ndarray = np.lexsort((rng.random(len(shards)), window_of[shards]))
    return mixed
