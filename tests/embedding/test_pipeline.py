from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from faceidx.embedding import pipeline
from faceidx.embedding.pipeline import (
    _BATCHES_AHEAD,
    PipelineOptions,
    auto_batch_size,
    embed_pictures,
    origin_of,
    settle_batch_size,
)
from faceidx.images import workers
from faceidx.images.prepare import Prepare, Prepared
from faceidx.images.preprocess import load
from faceidx.images.sources import Picture, open_source
from faceidx.models.face_model import normalize
from faceidx.progress import Progress
from tests.conftest import FAKE_DIM, FAKE_SIZE, FakeModel, draw


def _pictures(root: Path) -> list[Picture]:
    return open_source(root).pictures


def test_each_row_is_the_unit_embedding_of_its_picture(
    pictures: Path, fake_model: FakeModel
) -> None:
    found = embed_pictures(_pictures(pictures), fake_model, PipelineOptions(batch_size=4))
    assert found.paths == ["nobody.png", *(f"p{n // 2}/{n}.png" for n in range(10))]
    assert found.identities == ["", *(f"p{n // 2}" for n in range(10))]
    for row, key in enumerate(found.paths):
        raw = FakeModel().raw_embed(load(pictures / key, FAKE_SIZE)[None])
        unit, norm = normalize(raw)
        np.testing.assert_array_equal(found.vectors[row], unit[0])
        assert found.norms[row] == norm[0]
    assert fake_model.batches == [4, 4, 3]
    assert found.vectors.dtype == found.norms.dtype == np.float32


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 8), (100, 2)])
def test_neither_batch_nor_workers_change_the_result(
    batch_size: int, workers: int, pictures: Path
) -> None:
    base = embed_pictures(_pictures(pictures), FakeModel(), PipelineOptions())
    options = PipelineOptions(batch_size=batch_size, workers=workers)
    found = embed_pictures(_pictures(pictures), FakeModel(), options)
    np.testing.assert_array_equal(found.vectors, base.vectors)
    assert found.paths == base.paths


def test_a_flip_sums_the_embeddings_of_both_before_normalising(pictures: Path) -> None:
    found = embed_pictures(_pictures(pictures), FakeModel(), PipelineOptions(flip=True))
    for row, key in enumerate(found.paths):
        picture = load(pictures / key, FAKE_SIZE)
        both = np.stack([picture, picture[:, ::-1]])
        total = FakeModel().raw_embed(both).sum(0)
        np.testing.assert_allclose(found.norms[row], np.linalg.norm(total), rtol=1e-6)
        np.testing.assert_allclose(
            found.vectors[row], total / np.linalg.norm(total), rtol=1e-5, atol=1e-6
        )


def test_unreadable_pictures_are_listed_and_the_rest_is_done(
    pictures: Path, fake_model: FakeModel
) -> None:
    (pictures / "p1" / "text.jpg").write_text("this is no picture")
    (pictures / "p2" / "empty.png").touch()
    draw(pictures / "p3" / "large.png", seed=1, size=(40, 40))
    listed = [*_pictures(pictures), Picture("z.png", "", pictures / "z.png")]
    options = PipelineOptions(batch_size=2, max_pixels=1000)
    found = embed_pictures(listed, fake_model, options)
    assert len(found.paths) == 11
    failed = dict(found.left.failed)
    assert list(failed) == ["p1/text.jpg", "p2/empty.png", "p3/large.png", "z.png"]
    assert all(failed.values())
    assert all("\n" not in reason for reason in failed.values())
    assert fake_model.batches == [2, 2, 2, 2, 2, 1]  # failures leave no gaps in the batches


def test_pictures_whose_embedding_is_not_finite_are_listed_as_failed(pictures: Path) -> None:
    class Broken(FakeModel):
        def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
            rows = super().raw_embed(pictures)
            rows[1], rows[2], rows[4, 0] = np.nan, 0, np.inf
            return rows

    found = embed_pictures(_pictures(pictures), Broken(), PipelineOptions())
    keys = [picture.key for picture in _pictures(pictures)]
    assert [key for key, _ in found.left.failed] == [keys[1], keys[2], keys[4]]
    assert found.paths == [keys[0], keys[3], *keys[5:]]
    assert len(found.identities) == len(found.vectors) == len(found.norms) == 8
    assert np.isfinite(found.vectors).all()


def test_nothing_embedded_is_an_empty_result_of_the_right_shape(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    found = embed_pictures(_pictures(tmp_path), FakeModel(), PipelineOptions())
    assert found.vectors.shape == (0, FAKE_DIM)
    assert found.norms.shape == (0,)
    assert [key for key, _ in found.left.failed] == ["a.jpg"]


def test_pictures_far_from_the_models_shape_are_counted(tmp_path: Path) -> None:
    for name, size in {
        "crop": (16, 16),
        "close": (30, 30),
        "wide": (20, 40),
        "photo": (99, 99),
    }.items():
        draw(tmp_path / f"{name}.png", seed=0, size=size)
    assert embed_pictures(_pictures(tmp_path), FakeModel(), PipelineOptions()).far == 2


def test_the_look_ahead_is_bounded(
    pictures: Path, fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is decoded and not yet embedded is memory, however slow the model is: the window of the
    # workers, the batches that wait, and the one being put together.
    for number in range(200):
        draw(pictures / "many" / f"{number:03}.png", seed=number)
    asked: list[int] = []
    ahead: list[int] = []
    faces_of = workers._faces_of

    def counting(part: list[Picture], prepare: Prepare) -> list[Prepared | str]:
        asked.append(len(part))
        return faces_of(part, prepare)

    def embed(batch: np.ndarray, *, flip: bool) -> np.ndarray:
        time.sleep(0.02)
        done = sum(fake_model.batches)
        ahead.append(sum(asked) - done)
        return fake_model.raw_embed(batch)

    monkeypatch.setattr(workers, "_faces_of", counting)
    monkeypatch.setattr(fake_model, "embed", embed)
    listed = _pictures(pictures)
    embed_pictures(listed, fake_model, PipelineOptions(batch_size=4, workers=2))
    assert sum(fake_model.batches) == sum(asked) == len(listed) == 211
    window, request = 2 * 4, 2
    assert max(ahead) <= window + request + (_BATCHES_AHEAD + 2) * 4


def test_progress_counts_every_picture_once(pictures: Path, fake_model: FakeModel) -> None:
    (pictures / "a.jpg").write_text("no picture")
    reports: list[Progress] = []
    embed_pictures(_pictures(pictures), fake_model, PipelineOptions(batch_size=4), reports.append)
    assert [report.done for report in reports] == [5, 9, 12]
    assert {report.total for report in reports} == {12}
    assert reports[-1].note == "1 failed"


def test_the_origin_says_all_that_was_done_to_a_picture(fake_model: FakeModel) -> None:
    origin = origin_of(fake_model, PipelineOptions(flip=True))
    assert origin.fingerprint == fake_model.fingerprint(flip=True)
    assert origin.preprocessing == {
        "image_size": [16, 16],
        "color": "rgb",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "template": None,
        "flip": True,
        "arch": "fake",
        "engine": "torch",
        "precision": "fp32",
        "compiled": False,
        "batch_size": 32,
        "detect": "none",
    }


def test_the_batch_size_follows_device_and_memory_unless_given(
    fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settle_batch_size(PipelineOptions(batch_size=5), fake_model) == 5
    on_cpu = settle_batch_size(PipelineOptions(), fake_model)
    monkeypatch.setattr(pipeline, "resolve_device", lambda device: device)
    monkeypatch.setattr(pipeline, "free_memory", lambda _: 64 << 30)
    fake_model.device = "cuda:1"
    assert settle_batch_size(PipelineOptions(), fake_model) > on_cpu
    monkeypatch.setattr(pipeline, "free_memory", lambda _: 1 << 30)
    assert auto_batch_size("cpu", (16, 16)) == on_cpu
    assert 1 < auto_batch_size("cpu", (112, 112)) < on_cpu
    assert auto_batch_size("cpu", (4000, 4000)) == 1
