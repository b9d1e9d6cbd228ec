"""Small lists and embeddings that the tests of evaluation are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from faceidx.embedding.store import Left, Origin, write_embeddings


@pytest.fixture
def embeddings(tmp_path: Path) -> Callable[..., Path]:
    """Write an embeddings file of given keys; vectors are drawn around one centre a folder."""

    def write(
        keys: Sequence[str],
        vectors: np.ndarray | None = None,
        left: Left | None = None,
        name: str = "faces.h5",
    ) -> Path:
        people = [key.rpartition("/")[0] for key in keys]
        if vectors is None:
            vectors = np.stack([_near(person, i) for i, person in enumerate(people)])
        vectors = np.asarray(vectors, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1)
        write_embeddings(
            tmp_path / name,
            origin=Origin(model="tiny", fingerprint="f" * 64, preprocessing={"image_size": 8}),
            vectors=vectors / lengths[:, None],
            norms=lengths,
            paths=keys,
            identities=people,
            left=left,
        )
        return tmp_path / name

    return write


def _near(person: str, number: int) -> np.ndarray:
    centre = np.random.default_rng(list(person.encode())).normal(size=16)
    return centre + 0.9 * np.random.default_rng(number).normal(size=16)
