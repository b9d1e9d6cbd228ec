"""Cosine scores of listed pairs: straight from an embeddings file, in blocks, in float32."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from faceidx.embedding.store import EmbeddingFile, Origin
from faceidx.errors import InputError
from faceidx.evaluation.bootstrap import Units, bootstrap_fits, units_of
from faceidx.evaluation.lists.finding import Way, find_way, resolve
from faceidx.evaluation.lists.pairs import PairList
from faceidx.evaluation.templates import template_vectors
from faceidx.evaluation.unit_rows import require_unit
from faceidx.images.keys import folder_of
from faceidx.progress import Progress, ProgressCallback, silent

_log = logging.getLogger(__name__)

NOT_EMBEDDED = "not among the embedded pictures"
NO_FACE = "no face was found"

_READ_ROWS = 8192  # rows of one read from the file
_BLOCK_PAIRS = 1024  # pairs gathered at once: 2 MB a side, which stays in the cache
_AT_ONCE = 1 << 24  # pairs of a long list that are scored at once
_TILE = 2048  # rows a side of one tile
# Below this many pairs the order of the list is kept and every pair is multiplied on its own.
_FEW_PAIRS = 65_536
# A whole tile is multiplied as matrices where at least this share of it is wanted: one product out
# of a matrix multiplication costs about a thirtieth of one that is gathered first.
_DENSE = 1 / 32
# Folders are taken for people where no more than this share of the pairs' labels contradicts them.
_CONTRADICTED = 0.01
_NUMBERED = re.compile(r"(?:.*/)?([^/]+)_[0-9]+(?:\.[^./]+)?", re.DOTALL)  # Ann_Lee_0001.jpg


@dataclass(kw_only=True)
class KnownEmbeddings:
    """Embeddings that pairs can be scored with, wherever they are held."""

    source: str
    """Where they come from, for messages."""
    keys: Sequence[str]
    """(N,) picture keys."""
    identities: Sequence[str]
    """(N,) empty where unknown."""
    read: Callable[[np.ndarray], np.ndarray]
    """Rows, (n,) int64 rising and unique, to unit vectors (n, D) float32."""
    dim: int
    origin: Origin
    reasons: dict[str, str] = field(default_factory=dict)
    """Key to the reason why a picture has no embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPair:
    """A pair that has no score."""

    line: int
    left: str
    right: str
    genuine: bool
    reason: str
    """Which of its pictures is missing, and why."""


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """A list with its scores."""

    scores: np.ndarray
    """(P,) float32; 0 where the pair is missing."""
    found: np.ndarray
    """(P,) bool, False where the pair is missing."""
    missing: list[MissingPair]
    missing_pictures: dict[str, str]
    """Key to reason of each listed picture without an embedding, in the order of the list."""
    units: Units
    """Who stands on each side of each pair."""
    people: list[str]
    """(K,) the person of each key of the list, as `people_of` tells; of a template, the person of
    its first picture that is embedded, or else of its first."""
    pictures: list[str]
    """(K,) the embedded picture that stands for each key of the list (the first of a template);
    the key itself where there is none."""
    way: Way
    """By which the list's names were found."""


def known_embeddings(file: EmbeddingFile) -> KnownEmbeddings:
    """Make an open embeddings file usable for scoring; rows are read only when asked for."""
    left, made = file.left(), file.origin
    # Fewer bits of an embedding are told by its type alone, and a threshold has to know of them.
    stored = {**made.preprocessing, "dtype": file.dtype}
    return KnownEmbeddings(
        source=str(file.path),
        keys=file.paths(),
        identities=file.identities(),
        read=lambda rows: _read_rows(file, rows),
        dim=file.dim,
        origin=replace(made, preprocessing=stored),
        reasons={**dict.fromkeys(left.no_face, NO_FACE), **dict(left.failed)},
    )


def score_pairs(
    pairs: PairList, known: KnownEmbeddings, progress: ProgressCallback = silent
) -> ScoredPairs:
    """Score a list; pairs with a missing picture are returned by name and reason.

    A template of which only some pictures are missing is made from the others.

    Raises:
        InputError: no pair at all can be scored, or the embeddings hold NaN or infinities.
    """
    way = find_way(pairs, [*known.keys, *known.reasons])
    rows = resolve(pairs, known.keys, way)
    reasons = _reasons(pairs, rows, known, way)
    if pairs.templates is None:
        has_vector, place, vectors = rows >= 0, *_needed(rows, known)
    else:
        has_vector, vectors = template_vectors(
            pairs.templates, rows, len(pairs.keys), known.read, known.dim
        )
        place = np.arange(len(pairs.keys), dtype=np.int32)

    found = _of_sides(has_vector, pairs.left) & _of_sides(has_vector, pairs.right)
    if not found.any():
        raise _nothing_found(pairs, known)
    scores = np.zeros(len(found), dtype=np.float32)
    for part in _parts(len(found)):
        there = found[part]
        left, right = (place[side[part][there]] for side in (pairs.left, pairs.right))
        scores[part][there] = cosine_scores(vectors, left, right, _within(part, found, progress))
    if not np.isfinite(scores).all():
        raise InputError(f"{known.source} holds embeddings that are no finite numbers; embed again")
    return ScoredPairs(
        scores=scores,
        found=found,
        missing=_missing_pairs(pairs, found, has_vector, reasons),
        missing_pictures=reasons,
        units=_units(pairs, rows, known),
        people=_people(pairs, rows, known),
        pictures=_pictures(pairs, rows, known),
        way=way,
    )


def cosine_scores(
    vectors: np.ndarray, left: np.ndarray, right: np.ndarray, progress: ProgressCallback = silent
) -> np.ndarray:
    """Dot products of pairs of rows, in float32.

    Many pairs are put in order by tiles of rows, so that each tile's vectors stay in the cache; a
    tile of which a good part is wanted is one matrix product. The order takes some 30 bytes a pair;
    vectors are never gathered for more than a few pairs at once.

    Args:
        vectors: (N, D) float32 unit rows.
        left: (P,) rows.
        right: (P,) rows.

    Returns:
        (P,) float32.
    """
    scores = np.empty(len(left), dtype=np.float32)
    if len(left) <= _FEW_PAIRS:
        _gathered(vectors, left, vectors, right, scores)
        progress(Progress(stage="score", done=len(left), total=len(left), unit="pairs"))
        return scores
    left_rows, left = _compact(left, len(vectors))
    right_rows, right = _compact(right, len(vectors))
    across = -(-len(right_rows) // _TILE)
    tiles = left // _TILE * across + right // _TILE
    if tiles.max() < 65536:
        tiles = tiles.astype(np.uint16)  # NumPy sorts 16-bit numbers in linear time
    order = np.argsort(tiles, kind="stable")
    ends = np.cumsum(np.bincount(tiles))
    first = 0
    for tile in np.flatnonzero(np.diff(ends, prepend=0)):
        members = order[first : ends[tile]]
        first = int(ends[tile])
        low, high = int(tile) // across * _TILE, int(tile) % across * _TILE
        ours = vectors[left_rows[low : low + _TILE]]
        others = vectors[right_rows[high : high + _TILE]]
        near, far = left[members] - low, right[members] - high
        if len(members) >= _DENSE * len(ours) * len(others):
            scores[members] = (ours @ others.T)[near, far]
        else:
            part = np.empty(len(members), dtype=np.float32)
            _gathered(ours, near, others, far, part)
            scores[members] = part
        progress(Progress(stage="score", done=first, total=len(left), unit="pairs"))
    return scores


def _within(part: slice, found: np.ndarray, progress: ProgressCallback) -> ProgressCallback:
    """Report the progress of a part as that of all pairs that were found."""
    before, total = int(np.count_nonzero(found[: part.start])), int(np.count_nonzero(found))
    return lambda p: progress(replace(p, done=before + p.done, total=total))


def _parts(pairs: int) -> list[slice]:
    return [slice(first, first + _AT_ONCE) for first in range(0, pairs, _AT_ONCE)]


def _of_sides(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Look values up for one side of all pairs; (K,) by (P,) rows.

    Part by part, since NumPy makes 64 bits of each row first.
    """
    found = np.empty(len(rows), dtype=values.dtype)
    for part in _parts(len(rows)):
        found[part] = values[rows[part]]
    return found


def _gathered(
    ours: np.ndarray, left: np.ndarray, others: np.ndarray, right: np.ndarray, scores: np.ndarray
) -> None:
    """Write the dot products of `ours[left]` and `others[right]` to `scores`."""
    for first in range(0, len(left), _BLOCK_PAIRS):
        block = slice(first, first + _BLOCK_PAIRS)
        np.einsum("pd,pd->p", ours[left[block]], others[right[block]], out=scores[block])


def _compact(rows: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that occur, rising, and each row's place among them (P,) int32."""
    used = np.zeros(number, dtype=bool)
    used[rows] = True
    places = np.cumsum(used, dtype=np.int32) - 1
    return np.flatnonzero(used), places[rows]


def _needed(rows: np.ndarray, known: KnownEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors that the list names, each once: place of each key (K,), vectors (n, D)."""
    wanted, inverse = np.unique(rows[rows >= 0], return_inverse=True)
    place = np.full(len(rows), -1, dtype=np.int32)
    place[rows >= 0] = inverse
    return place, known.read(wanted)


def _read_rows(file: EmbeddingFile, rows: np.ndarray) -> np.ndarray:
    """Read chosen rows, rising: only the stretches of the file that hold some of them."""
    vectors = np.empty((len(rows), file.dim), dtype=np.float32)
    stretch = rows // _READ_ROWS
    starts = np.flatnonzero(np.diff(stretch, prepend=-1))
    for start, end in pairwise([*starts, len(rows)]):
        chosen = rows[start:end]
        read = file.vectors(slice(int(chosen[0]), int(chosen[-1]) + 1))
        vectors[start:end] = read[chosen - chosen[0]]
    require_unit(vectors, rows, file.path)
    return vectors


def _nothing_found(pairs: PairList, known: KnownEmbeddings) -> InputError:
    if not len(known.keys):
        return InputError(f"{known.source} holds no embedding")
    names = pairs.templates.pictures if pairs.templates else pairs.keys
    _log.debug("the list names %r and the embeddings %r", names[0], known.keys[0])
    why = "are they the same pictures, relative to the same folder? -v names one of each"
    if "#" in known.keys[0] and "#" not in names[0]:
        why = "those are faces of pictures (KEY#1, as of --detect all); embed with --detect largest"
    return InputError(
        f"{pairs.path}: none of its {len(pairs.genuine)} pairs has both pictures in "
        f"{known.source}; {why}"
    )


def _reasons(pairs: PairList, rows: np.ndarray, known: KnownEmbeddings, way: Way) -> dict[str, str]:
    """Key to reason of each listed picture that has no embedding."""
    names = pairs.templates.pictures if pairs.templates else pairs.keys
    missing = np.flatnonzero(rows < 0)
    if not len(missing):
        return {}
    listed = list(known.reasons)
    because = resolve(pairs, listed, way)
    return {
        names[i]: known.reasons[listed[because[i]]] if because[i] >= 0 else NOT_EMBEDDED
        for i in missing
    }


def _missing_pairs(
    pairs: PairList, found: np.ndarray, has_vector: np.ndarray, reasons: dict[str, str]
) -> list[MissingPair]:
    missing = []
    reason_of: dict[tuple[str, ...], str] = {}  # a picture may be missing from many pairs
    for i in np.flatnonzero(~found):
        sides = dict.fromkeys(int(side[i]) for side in (pairs.left, pairs.right))
        lacking = tuple(pairs.keys[side] for side in sides if not has_vector[side])
        if lacking not in reason_of:
            reason_of[lacking] = "; ".join(
                f"{key}: {reasons.get(key, 'none of its pictures is embedded')}" for key in lacking
            )
        missing.append(
            MissingPair(
                line=int(pairs.lines[i]),
                left=pairs.keys[pairs.left[i]],
                right=pairs.keys[pairs.right[i]],
                genuine=bool(pairs.genuine[i]),
                reason=reason_of[lacking],
            )
        )
        _log.debug("line %d: %s", missing[-1].line, missing[-1].reason)
    return missing


def _pictures(pairs: PairList, rows: np.ndarray, known: KnownEmbeddings) -> list[str]:
    if pairs.templates is not None:
        rows = rows[pairs.templates.first_pictures(rows >= 0)]
    return [known.keys[row] if row >= 0 else key for key, row in zip(pairs.keys, rows, strict=True)]


def people_of(names: Sequence[str], identities: Sequence[str]) -> list[str]:
    """Return the person of each picture: its identity, or else its folder; empty without either.

    Args:
        names: (K,) pictures.
        identities: (K,) empty where unknown.
    """
    return [identity or folder_of(name) for name, identity in zip(names, identities, strict=True)]


def units_of_pairs(
    names: Sequence[str],
    identities: Sequence[str],
    left: np.ndarray,
    right: np.ndarray,
    genuine: np.ndarray,
    known: np.ndarray | None = None,
) -> Units:
    """Say who stands on each side of each pair: people where they are known, else pictures.

    People are the identities, or else the folders of the pictures, or the folders further up, or
    what stands before the number in a picture's own name: the first of these that the labels do not
    contradict, as they do where a folder holds one view of a person, or the pictures of all.

    Args:
        names: (K,) pictures.
        identities: (K,) empty where unknown.
        left: (P,) row in `names`.
        right: (P,).
        genuine: (P,) bool.
        known: (K,) bool, pictures whose identity is asked for; of the others it may be lacking,
            and their pairs contradict nothing.
    """
    known = np.ones(len(names), dtype=bool) if known is None else known
    told = _of_sides(known, left) & _of_sides(known, right)
    for people in _likely_people(names, identities, known):
        number = units_of(people, people, "identities").left.astype(np.int32)
        units = Units(
            left=_of_sides(number, left), right=_of_sides(number, right), kind="identities"
        )
        wrong = np.count_nonzero(((units.left == units.right) != genuine) & told)
        if wrong <= _CONTRADICTED * np.count_nonzero(told):
            return units
        if not bootstrap_fits(len(left)):  # nobody will be drawn, so it is not worth while
            break
    return Units(left=left, right=right, kind="pictures")


def _likely_people(
    names: Sequence[str], identities: Sequence[str], known: np.ndarray
) -> Iterator[list[str]]:
    """Yield whom the pictures may show (K,), each time with a name for every one of them."""
    people = people_of(names, identities)
    if all(person or not there for person, there in zip(people, known, strict=True)):
        # One of whom nothing is known is a person of their own; no name holds a NUL.
        yield [person or f"\0{name}" for name, person in zip(names, people, strict=True)]
    folders = [name.rpartition("/")[0] for name in names]
    while all(folders := [folder.rpartition("/")[0] for folder in folders]):
        yield folders
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if all(numbered):
        yield [found[1] for found in numbered if found]


def _units(pairs: PairList, rows: np.ndarray, known: KnownEmbeddings) -> Units:
    if pairs.templates is not None:
        return Units(left=pairs.left, right=pairs.right, kind="templates")
    identities = _identities(rows, known)
    return units_of_pairs(
        pairs.keys, identities, pairs.left, pairs.right, pairs.genuine, known=rows >= 0
    )


def _people(pairs: PairList, rows: np.ndarray, known: KnownEmbeddings) -> list[str]:
    if pairs.templates is None:
        return people_of(pairs.keys, _identities(rows, known))
    pictures = pairs.templates.first_pictures(rows >= 0)
    names = [pairs.templates.pictures[picture] for picture in pictures]
    return people_of(names, _identities(rows[pictures], known))


def _identities(rows: np.ndarray, known: KnownEmbeddings) -> list[str]:
    return [known.identities[row] if row >= 0 else "" for row in rows]
