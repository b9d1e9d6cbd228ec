"""How well groups agree with the people: pairwise and B-cubed precision and recall.

Pairwise: of all pairs of faces in one group, the share that show one person (precision); of all
pairs that show one person, the share in one group (recall).

B-cubed (Bagga and Baldwin, 1998): the mean over faces of the share of the face's group that shows
its person (precision), and of the share of its person's faces that are in its group (recall). One
large group weighs as its faces do, not as its pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def cluster_figures(groups: np.ndarray, people: np.ndarray) -> dict[str, Any]:
    """Compare groups with people.

    Args:
        groups, people: (N,) whole numbers; N at least 1.

    Returns:
        `pairwise` and `bcubed`, each `{precision, recall, f1}`; a share of no pairs is None.
    """
    _, group, of_group = np.unique(groups, return_inverse=True, return_counts=True)
    _, person, of_person = np.unique(people, return_inverse=True, return_counts=True)
    _, both, of_both = np.unique(
        group.astype(np.int64) * len(of_person) + person, return_inverse=True, return_counts=True
    )
    shared = of_both[both]
    right = _pairs(of_both)
    return {
        "pairwise": _figures(
            _share(right, _pairs(of_group)),
            _share(right, _pairs(of_person)),
        ),
        "bcubed": _figures(
            float((shared / of_group[group]).mean()),
            float((shared / of_person[person]).mean()),
        ),
    }


def _pairs(counts: np.ndarray) -> int:
    return int((counts.astype(np.int64) * (counts - 1) // 2).sum())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _figures(precision: float | None, recall: float | None) -> dict[str, float | None]:
    f1 = None
    if precision is not None and recall is not None and precision + recall > 0:
        f1 = 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}
