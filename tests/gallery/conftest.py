"""Clustered unit vectors and the embeddings files and galleries made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.store import Origin, write_embeddings
from faceidx.gallery import rounded, scan
from faceidx.gallery.build import BuildOptions, build
from faceidx.models.open import ModelOptions

FINGERPRINT = "f" * 64
DIM = 16

WriteFaces = Callable[..., Path]


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(people: int, pictures: int, *, seed: int = 0, spread: float = 0.6) -> np.ndarray:
    """(people * pictures, DIM) unit vectors, a person's rows one after the other."""
    chance = np.random.default_rng(seed)
    centres = unit(chance.normal(size=(people, DIM)))
    noise = spread * unit(chance.normal(size=(people * pictures, DIM)))
    return unit(np.repeat(centres, pictures, axis=0) + noise)


@pytest.fixture
def write_faces(tmp_path: Path) -> WriteFaces:
    def write(
        name: str,
        vectors: np.ndarray,
        identities: Sequence[str],
        *,
        paths: Sequence[str] | None = None,
        fingerprint: str = FINGERPRINT,
        dtype: str = "float32",
    ) -> Path:
        path = tmp_path / name
        write_embeddings(
            path,
            origin=Origin(model="tiny", fingerprint=fingerprint, preprocessing={"size": 112}),
            vectors=vectors,
            norms=np.ones(len(vectors), dtype=np.float32),
            paths=paths or [f"{who or 'root'}/{n}.jpg" for n, who in enumerate(identities)],
            identities=identities,
            dtype=dtype,
        )
        return path

    return write


@pytest.fixture
def gallery_path(tmp_path: Path, write_faces: WriteFaces) -> Path:
    """A gallery of 12 people with 5 pictures each."""
    names = [f"person{n // 5:02}" for n in range(60)]
    file = write_faces("people.h5", clustered(12, 5), names)
    build(BuildOptions(files=[file], out=tmp_path / "gallery"))
    return tmp_path / "gallery"


@pytest.fixture(scope="session")
def lfw_dev(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of 785 real faces of 443 people."""
    out = tmp_path_factory.mktemp("lfw") / "dev.h5"
    weights = shared_data / "weights" / "mobilefacenet_foamliu.onnx"
    model = ModelOptions(path=weights, preset="imagenet", device="cpu")
    embed(EmbedOptions(images=shared_data / "lfw-dev", out=out, model=model))
    return out


@pytest.fixture(params=["whole numbers", "float32"])
def first_pass(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both first passes of exact search, whichever this CPU would choose."""
    for module in (rounded, scan):
        monkeypatch.setattr(module, "has_int8", lambda: request.param == "whole numbers")
    return str(request.param)
