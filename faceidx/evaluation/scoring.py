"""Cosine scores of listed pairs: straight from an embeddings file, in blocks, in float32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from faceidx.embedding.store import EmbeddingFile, Origin
from faceidx.errors import InputError
from faceidx.evaluation.intervals import Units, units_of
from faceidx.evaluation.lists.pairs import PairList, Templates, resolve
from faceidx.progress import Progress, ProgressCallback, silent

_log = logging.getLogger(__name__)

NOT_EMBEDDED = "not among the embedded pictures"
NO_FACE = "no face was found"

_READ_ROWS = 8192  # rows of one read from the file
_BLOCK_PAIRS = 4096  # pairs gathered at once: a few MB a side, which stays in the cache
_TILE = 2048  # rows a side of one tile
# Below this many pairs the order of the list is kept and every pair is multiplied on its own.
_FEW_PAIRS = 65_536
# A whole tile is multiplied as matrices where at least this share of it is wanted: one product out
# of a matrix multiplication costs about a twentieth of one that is gathered first.
_DENSE = 1 / 20
_FACES_AT_ONCE = 65_536
# Folders are taken for people where no more than this share of the pairs' labels contradicts them.
_CONTRADICTED = 0.01


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


@dataclass(frozen=True, kw_only=True)
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
    pictures: list[str]
    """(K,) the embedded picture that stands for each key of the list (the first of a template);
    the key itself where there is none."""


def known_embeddings(file: EmbeddingFile) -> KnownEmbeddings:
    """Make an open embeddings file usable for scoring; rows are read only when asked for."""
    left = file.left()
    return KnownEmbeddings(
        source=str(file.path),
        keys=file.paths(),
        identities=file.identities(),
        read=lambda rows: _read_rows(file, rows),
        dim=file.dim,
        origin=file.origin,
        reasons={**dict.fromkeys(left.no_face, NO_FACE), **dict(left.failed)},
    )


def score_pairs(
    pairs: PairList, known: KnownEmbeddings, progress: ProgressCallback = silent
) -> ScoredPairs:
    """Score a list; pairs with a missing picture are returned by name and reason.

    A template is the mean of its media, each the mean of its pictures, brought to length 1
    (Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPRW 2017). A template of which only
    some pictures are missing is made from the others.

    Raises:
        InputError: no pair at all can be scored, or the embeddings hold NaN or infinities.
    """
    rows = resolve(pairs, known.keys)
    reasons = _reasons(pairs, rows, known)
    if pairs.templates is None:
        has_vector, place, vectors = rows >= 0, *_needed(rows, known)
    else:
        has_vector, vectors = _template_vectors(pairs.templates, rows, len(pairs.keys), known)
        place = np.arange(len(pairs.keys))

    found = has_vector[pairs.left] & has_vector[pairs.right]
    if not found.any():
        raise _nothing_found(pairs, known)
    scores = np.zeros(len(found), dtype=np.float32)
    scores[found] = cosine_scores(
        vectors, place[pairs.left[found]], place[pairs.right[found]], progress
    )
    if not np.isfinite(scores).all():
        raise InputError(f"{known.source} holds embeddings that are no finite numbers; embed again")
    return ScoredPairs(
        scores=scores,
        found=found,
        missing=_missing_pairs(pairs, found, has_vector, reasons),
        missing_pictures=reasons,
        units=_units(pairs, rows, known),
        pictures=_pictures(pairs, rows, known),
    )


def cosine_scores(
    vectors: np.ndarray, left: np.ndarray, right: np.ndarray, progress: ProgressCallback = silent
) -> np.ndarray:
    """Dot products of pairs of rows, in float32 and in bounded memory.

    Many pairs are put in order by tiles of rows, so that each tile's vectors stay in the cache; a
    tile of which a good part is wanted is one matrix product.

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


def _gathered(
    ours: np.ndarray, left: np.ndarray, others: np.ndarray, right: np.ndarray, scores: np.ndarray
) -> None:
    """Write the dot products of `ours[left]` and `others[right]` to `scores`."""
    for first in range(0, len(left), _BLOCK_PAIRS):
        block = slice(first, first + _BLOCK_PAIRS)
        np.einsum("pd,pd->p", ours[left[block]], others[right[block]], out=scores[block])


def _compact(rows: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that occur, rising, and each row's place among them."""
    used = np.zeros(number, dtype=bool)
    used[rows] = True
    places = np.cumsum(used, dtype=np.int64) - 1
    return np.flatnonzero(used), places[rows]


def _needed(rows: np.ndarray, known: KnownEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors that the list names, each once: place of each key (K,), vectors (n, D)."""
    wanted, inverse = np.unique(rows[rows >= 0], return_inverse=True)
    place = np.full(len(rows), -1, dtype=np.int64)
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
    return vectors


def _template_vectors(
    templates: Templates, rows: np.ndarray, number: int, known: KnownEmbeddings
) -> tuple[np.ndarray, np.ndarray]:
    """Average pictures over each media, then media over each template.

    Returns:
        (T,) bool, whether any picture of the template is known, and (T, D) float32 unit rows.
    """
    known_faces = np.flatnonzero(rows[templates.picture] >= 0)
    faces = known_faces[np.lexsort((templates.media[known_faces], templates.template[known_faces]))]
    of_template, of_media = templates.template[faces], templates.media[faces]
    vectors = np.zeros((number, known.dim), dtype=np.float32)
    first = 0
    while first < len(faces):
        end = _whole_templates(of_template, first)
        part = slice(first, end)
        wanted, inverse = np.unique(rows[templates.picture[faces[part]]], return_inverse=True)
        read = known.read(wanted)[inverse]
        new_template = np.diff(of_template[part], prepend=-1) != 0
        new_media = new_template | (np.diff(of_media[part], prepend=of_media[first]) != 0)
        media_starts = np.flatnonzero(new_media)
        means = np.add.reduceat(read, media_starts) / _lengths(media_starts, len(read))[:, None]
        template_starts = np.flatnonzero(new_template[media_starts])
        vectors[of_template[part][new_template]] = np.add.reduceat(means, template_starts)
        first = end
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return lengths[:, 0] > 0, vectors


def _whole_templates(of_template: np.ndarray, first: int) -> int:
    """End of a run of whole templates with about `_FACES_AT_ONCE` faces; at least one template."""
    end = first + _FACES_AT_ONCE
    if end >= len(of_template):
        return len(of_template)
    begins = int(np.searchsorted(of_template, of_template[end], side="left"))
    if begins > first:
        return begins
    return int(np.searchsorted(of_template, of_template[end], side="right"))


def _lengths(starts: np.ndarray, total: int) -> np.ndarray:
    return np.diff(starts, append=total).astype(np.float32)


def _nothing_found(pairs: PairList, known: KnownEmbeddings) -> InputError:
    if not len(known.keys):
        return InputError(f"{known.source} holds no embedding")
    names = pairs.templates.pictures if pairs.templates else pairs.keys
    return InputError(
        f"{pairs.path}: none of its {len(pairs.genuine)} pairs has both pictures in "
        f"{known.source}; the list names {names[0]!r} and the embeddings {known.keys[0]!r}: "
        "are they the same pictures, relative to the same folder?"
    )


def _reasons(pairs: PairList, rows: np.ndarray, known: KnownEmbeddings) -> dict[str, str]:
    """Key to reason of each listed picture that has no embedding."""
    names = pairs.templates.pictures if pairs.templates else pairs.keys
    missing = np.flatnonzero(rows < 0)
    if not len(missing):
        return {}
    listed = list(known.reasons)
    because = resolve(pairs, listed)
    return {
        names[i]: known.reasons[listed[because[i]]] if because[i] >= 0 else NOT_EMBEDDED
        for i in missing
    }


def _missing_pairs(
    pairs: PairList, found: np.ndarray, has_vector: np.ndarray, reasons: dict[str, str]
) -> list[MissingPair]:
    missing = []
    for i in np.flatnonzero(~found):
        sides = dict.fromkeys(int(side[i]) for side in (pairs.left, pairs.right))
        lacking = [pairs.keys[side] for side in sides if not has_vector[side]]
        missing.append(
            MissingPair(
                line=int(pairs.lines[i]),
                left=pairs.keys[pairs.left[i]],
                right=pairs.keys[pairs.right[i]],
                genuine=bool(pairs.genuine[i]),
                reason="; ".join(
                    f"{key}: {reasons.get(key, 'none of its pictures is embedded')}"
                    for key in lacking
                ),
            )
        )
        _log.debug("line %d: %s", missing[-1].line, missing[-1].reason)
    return missing


def _pictures(pairs: PairList, rows: np.ndarray, known: KnownEmbeddings) -> list[str]:
    pictures = list(pairs.keys)
    if pairs.templates is None:
        places = np.flatnonzero(rows >= 0)
        rows = rows[places]
    else:
        faces = np.flatnonzero(rows[pairs.templates.picture] >= 0)
        places, first = np.unique(pairs.templates.template[faces], return_index=True)
        rows = rows[pairs.templates.picture[faces[first]]]
    for place, row in zip(places, rows, strict=True):
        pictures[place] = known.keys[row]
    return pictures


def units_of_pairs(
    names: Sequence[str],
    identities: Sequence[str],
    left: np.ndarray,
    right: np.ndarray,
    genuine: np.ndarray,
) -> Units:
    """Say who stands on each side of each pair: people where they are known, else pictures.

    People are the identities, or else the folders of the pictures. Folders that contradict the
    labels (`frontal/` and `profile/`, or all pictures in one) are not people.

    Args:
        names: (K,) pictures.
        identities: (K,) empty where unknown.
        left: (P,) int64, row in `names`.
        right: (P,) int64.
        genuine: (P,) bool.
    """
    people = [
        identity or name.rpartition("/")[0]
        for name, identity in zip(names, identities, strict=True)
    ]
    if all(people):
        number = units_of(people, people, "identities").left
        units = Units(left=number[left], right=number[right], kind="identities")
        wrong = np.count_nonzero((units.left == units.right) != genuine)
        if wrong <= _CONTRADICTED * len(genuine):
            return units
    return Units(left=left, right=right, kind="pictures")


def _units(pairs: PairList, rows: np.ndarray, known: KnownEmbeddings) -> Units:
    if pairs.templates is not None:
        return Units(left=pairs.left, right=pairs.right, kind="templates")
    identities = [known.identities[row] if row >= 0 else "" for row in rows]
    return units_of_pairs(pairs.keys, identities, pairs.left, pairs.right, pairs.genuine)
