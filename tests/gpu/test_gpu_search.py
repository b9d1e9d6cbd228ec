"""Exact search on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faceidx.gallery.folder import load_gallery
from faceidx.gallery.search import search
from tests.gallery.conftest import clustered, gallery_path, write_faces

__all__ = ["gallery_path", "write_faces"]


def test_search_on_a_gpu_finds_what_the_cpu_finds(gallery_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    if not faiss.get_num_gpus():
        pytest.skip("FAISS finds no GPU here")
    probes = clustered(30, 10, seed=9)
    with load_gallery(gallery_path) as cpu, load_gallery(gallery_path, device="cuda") as gpu:
        here, there = search(cpu, probes, 9), search(gpu, probes, 9)
    np.testing.assert_allclose(here[0], there[0], atol=1e-5)
    assert (here[1] == there[1]).mean() > 0.99
