"""Templates: several pictures of a person that are compared as one, as in IJB-B and IJB-C.

A template is the mean of its media, each the mean of its pictures, brought to length 1 (Whitelam et
al., "IARPA Janus Benchmark-B Face Dataset", CVPRW 2017).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from faceidx.evaluation.lists.pairs import Templates

_FACES_AT_ONCE = 65_536


def template_vectors(
    templates: Templates,
    rows: np.ndarray,
    number: int,
    read: Callable[[np.ndarray], np.ndarray],
    dim: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Average pictures over each media, then media over each template.

    Args:
        rows: int64, the embedding of each of the templates' pictures, -1 where there is none.
        number: T, how many templates there are.
        read: embeddings, (n,) int64 rising and unique, to unit vectors (n, D) float32.
        dim: D.

    Returns:
        (T,) bool, whether any picture of the template is known, and (T, D) float32 unit rows.
    """
    known_faces = np.flatnonzero(rows[templates.picture] >= 0)
    faces = known_faces[np.lexsort((templates.media[known_faces], templates.template[known_faces]))]
    of_template, of_media = templates.template[faces], templates.media[faces]
    vectors = np.zeros((number, dim), dtype=np.float32)
    first = 0
    while first < len(faces):
        end = _whole_templates(of_template, first)
        part = slice(first, end)
        wanted, inverse = np.unique(rows[templates.picture[faces[part]]], return_inverse=True)
        pictures = read(wanted)[inverse]
        new_template = np.diff(of_template[part], prepend=-1) != 0
        new_media = new_template | (np.diff(of_media[part], prepend=of_media[first]) != 0)
        media_starts = np.flatnonzero(new_media)
        means = (
            np.add.reduceat(pictures, media_starts) / _lengths(media_starts, len(pictures))[:, None]
        )
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
