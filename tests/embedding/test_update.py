from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from faceidx.embedding import embed as module
from faceidx.embedding import merge, pipeline, shards
from faceidx.embedding.embed import embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import EmbeddingFile
from faceidx.errors import InputError, JobError
from faceidx.images.prepare import FACE, Prepared, WholePicture
from faceidx.models.face_model import Compiled
from faceidx.models.fidelity import ITSELF
from faceidx.models.open import ModelOptions
from tests.conftest import FakeModel, draw
from tests.embedding.test_embed import _content, _interrupt, _options, _PulledPlugError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 3)
    monkeypatch.setattr(merge, "_BLOCK", 4)


def _update(pictures: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return embed(_options(pictures, out, update=True, **changes))


def test_an_update_gives_what_embedding_anew_would_and_redoes_only_what_changed(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    (pictures / "p1" / "text.jpg").write_text("this is no picture")
    (pictures / "p3" / "text.jpg").write_text("nor is this")
    assert _update(pictures, out)["embedded"] == 11  # there is nothing yet: a plain run
    draw(pictures / "p0" / "0.png", seed=77)  # another picture under the same name
    draw(pictures / "p2" / "new.png", seed=78)
    draw(pictures / "zz.png", seed=79)
    draw(pictures / "p3" / "text.jpg", seed=80)  # was none, is one now
    (pictures / "p2" / "4.png").unlink()
    shutil.rmtree(pictures / "p4")
    model.batches.clear()
    result = _update(pictures, out)
    assert sum(model.batches) == 4
    assert (result["kept"], result["removed"], result["resumed"]) == (7, 3, 0)
    assert (result["images"], result["embedded"], result["failed"]) == (12, 11, 1)
    embed(_options(pictures, tmp_path / "fresh.h5"))
    assert _content(out) == _content(tmp_path / "fresh.h5")
    model.batches.clear()
    assert _update(pictures, out)["kept"] == 11
    assert model.batches == []
    assert _content(out) == _content(tmp_path / "fresh.h5")


def test_another_identity_of_the_same_picture_is_taken_over(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    faces = pictures / "faces.csv"
    faces.write_text("path,identity\np0/0.png,anna\np0/1.png,anna\n")
    out = tmp_path / "out.h5"
    embed(_options(faces, out))
    faces.write_text("path,identity\np0/0.png,anna\np0/1.png,bert\n")
    assert _update(faces, out)["kept"] == 1
    with EmbeddingFile(out) as file:
        assert file.identities() == ["anna", "bert"]


def test_failed_pictures_are_tried_again_when_asked_and_nothing_else_is_touched(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    broken = pictures / "p1" / "late.png"
    broken.write_text("not there yet")
    time = broken.stat().st_mtime_ns
    embed(_options(pictures, out))
    draw(broken, seed=5)
    content = broken.read_bytes()
    broken.write_bytes(content)
    os.utime(broken, ns=(time, time))
    draw(pictures / "p1" / "new.png", seed=6)
    model.batches.clear()
    result = embed(_options(pictures, out, retry_failed=True))
    assert model.batches == [1]
    assert (result["embedded"], result["failed"], result["kept"]) == (12, 0, 11)
    with EmbeddingFile(out) as file:
        assert "p1/late.png" in file.paths()
        assert "p1/new.png" not in file.paths()
        assert file.paths() == sorted(file.paths())


def test_an_update_leaves_failures_alone_unless_they_are_to_be_retried(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    (pictures / "text.jpg").write_text("this is no picture")
    embed(_options(pictures, out))
    tried: list[int] = []

    def progress(report: Any) -> None:
        tried.append(report.total)

    embed(_options(pictures, out, update=True), progress)
    assert set(tried) == {0}
    tried.clear()
    embed(_options(pictures, out, update=True, retry_failed=True), progress)
    assert set(tried) == {1}


def test_an_interrupted_update_leaves_the_file_and_goes_on(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out))
    before = _content(out)
    for number in range(40):
        draw(pictures / f"p{number % 7}" / f"more{number}.png", seed=number)
    model.batches.clear()
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=3)
        with pytest.raises(_PulledPlugError):
            _update(pictures, out)
    assert _content(out) == before
    result = _update(pictures, out)
    assert result["resumed"] > 0
    assert result["kept"] == 11
    embed(_options(pictures, tmp_path / "fresh.h5"))
    assert _content(out) == _content(tmp_path / "fresh.h5")


def test_what_an_interrupted_update_made_is_kept_when_the_file_is_gone(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out))
    for number in range(40):
        draw(pictures / "zz" / f"more{number:02}.png", seed=number)
    model.batches.clear()
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=3)
        with pytest.raises(_PulledPlugError):
            _update(pictures, out)
    out.unlink()
    assert _update(pictures, out)["resumed"] > 0
    embed(_options(pictures, tmp_path / "fresh.h5"))
    assert _content(out) == _content(tmp_path / "fresh.h5")


def test_a_file_of_another_model_or_options_is_not_brought_up_to_date(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out))
    before = _content(out)
    with pytest.raises(InputError, match=r"fingerprints .* cannot be compared"):
        _update(pictures, out, pipeline=PipelineOptions(flip=True))
    with pytest.raises(InputError, match="--overwrite goes with neither"):
        _update(pictures, out, overwrite=True)
    with pytest.raises(InputError, match="give --update to bring it up to date, or --overwrite"):
        embed(_options(pictures, out))
    monkeypatch.setattr(pipeline, "prepare_of", _Halves.of)
    monkeypatch.setattr(module, "prepare_of", _Halves.of)
    with pytest.raises(InputError, match="detect was none, now all"):
        _update(pictures, out, pipeline=PipelineOptions(detect="all"))
    assert _content(out) == before


def test_another_precision_than_the_files_warns(
    pictures: Path, model: FakeModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out))
    model.precision = "bf16"
    _update(pictures, out)
    assert not caplog.text  # nothing is added
    draw(pictures / "new.png", seed=1)
    _update(pictures, out)
    assert "precision was fp32, and is bf16 for what is added" in caplog.text
    with EmbeddingFile(out) as file:  # what stays was made so, and warns where it is mixed
        assert file.origin.preprocessing["precision"] == "fp32"
    shutil.rmtree(pictures)
    draw(pictures / "new.png", seed=2)
    _update(pictures, out)
    with EmbeddingFile(out) as file:
        assert file.origin.preprocessing["precision"] == "bf16"


@pytest.mark.parametrize("compiled", [False, "onednn"])
def test_what_is_added_is_made_as_the_file_was(
    pictures: Path, fake_model_file: Path, tmp_path: Path, compiled: Compiled
) -> None:
    given = ModelOptions(path=fake_model_file, device="cpu")
    first = replace(given, engine="torch", precision="bf16", compiled=compiled)
    out = tmp_path / "out.h5"
    embed(_options(pictures, out, model=first))
    if _recorded(out) != compiled:
        pytest.skip("this torch and this processor have no graph of oneDNN for bf16")
    draw(pictures / "p2" / "new.png", seed=78)
    assert _update(pictures, out, model=given)["kept"] == 11
    assert _recorded(out) == compiled
    embed(_options(pictures, tmp_path / "fresh.h5", model=first))
    found, fresh = (_content(path)["embeddings"][1] for path in (out, tmp_path / "fresh.h5"))
    np.testing.assert_allclose(found, fresh, atol=0.01)


def test_values_that_new_rows_would_lack_are_not_lost(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out))
    with h5py.File(out, "r+") as file:
        file["mine"] = np.arange(11)
    for way in ({"update": True}, {"retry_failed": True}):
        with pytest.raises(InputError, match="'mine', which new rows would lack"):
            embed(_options(pictures, out, **way))
    with h5py.File(out, "r+") as file:
        del file["mine"], file["stamps"]
    for way in ({"update": True}, {"retry_failed": True}):
        with pytest.raises(InputError, match="does not say when its pictures last changed"):
            embed(_options(pictures, out, **way))


def test_embeddings_stay_stored_as_they_were(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out, dtype="float16"))
    draw(pictures / "p2" / "new.png", seed=78)
    with pytest.raises(InputError, match="dtype was float16, now float32"):
        _update(pictures, out, dtype="float32")
    assert _update(pictures, out)["kept"] == 11
    with EmbeddingFile(out) as file:
        assert file.dtype == "float16"
    embed(_options(pictures, tmp_path / "fresh.h5", dtype="float16"))
    assert _content(out) == _content(tmp_path / "fresh.h5")


def test_an_update_that_leaves_only_failures_says_why_they_fail(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    (pictures / "text.jpg").write_text("this is no picture")
    embed(_options(pictures, out))
    for picture in pictures.rglob("*.png"):
        picture.unlink()
    with pytest.raises(JobError, match=r"none of 1 pictures .* the first: not a picture"):
        _update(pictures, out)


@pytest.mark.parametrize("damage", ["no json", "[]", "{}", '{"least": null}', 7, None])
def test_a_fidelity_that_cannot_be_read_is_that_of_float32(
    pictures: Path, tmp_path: Path, fake_model_file: Path, damage: str | int | None
) -> None:
    model = ModelOptions(path=fake_model_file, device="cpu", engine="torch", precision="bf16")
    out = tmp_path / "out.h5"
    embed(_options(pictures, out, model=model))
    with h5py.File(out, "r+") as file:
        del file.attrs["fidelity"]
        if damage is not None:
            file.attrs["fidelity"] = damage
    assert _update(pictures, out, model=model)["fidelity"] == asdict(ITSELF)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_an_update_of_nothing_keeps_the_fidelity_and_needs_no_picture(
    pictures: Path, fake_model_file: Path, tmp_path: Path, precision: str
) -> None:
    engine = "onnx" if precision == "int8" else "torch"
    model = ModelOptions(path=fake_model_file, device="cpu", engine=engine, precision=precision)
    out = tmp_path / "out.h5"
    before = embed(_options(pictures, out, model=model))["fidelity"]
    for way in ({"update": True}, {"retry_failed": True}):
        assert embed(_options(pictures, out, model=model, **way))["fidelity"] == before
    shutil.copy(pictures / "p0" / "0.png", pictures / "zz.png")
    assert _update(pictures, out, model=model)["kept"] == 11
    with EmbeddingFile(out) as file:  # calibrated anew on other pictures it would differ
        rows = dict(zip(file.paths(), file.vectors(), strict=True))
    np.testing.assert_allclose(rows["p0/0.png"], rows["zz.png"], atol=1e-5)


def test_another_engine_takes_nothing_over(
    pictures: Path, fake_model_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = ModelOptions(path=fake_model_file, device="cpu")
    out = tmp_path / "out.h5"
    embed(_options(pictures, out, model=replace(given, engine="torch", precision="bf16")))
    draw(pictures / "new.png", seed=1)
    result = _update(pictures, out, model=replace(given, engine="onnx"))
    assert (result["engine"], result["precision"]) == ("onnx", "fp32")
    assert "engine was torch, and is onnx for what is added" in caplog.text


def test_a_way_that_this_version_does_not_know_is_chosen_anew(
    pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    model = ModelOptions(path=fake_model_file, device="cpu")
    out = tmp_path / "out.h5"
    embed(_options(pictures, out, model=model))
    with h5py.File(out, "r+") as file:
        recorded = json.loads(file.attrs["preprocessing"]) | {"compiled": "by magic"}
        file.attrs["preprocessing"] = json.dumps(recorded)
    result = _update(pictures, out, model=model)
    assert (result["kept"], result["compiled"]) == (11, False)


def _recorded(out: Path) -> object:
    with EmbeddingFile(out) as file:
        return file.origin.preprocessing["compiled"]


# --- several faces a picture --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Halves:
    """Finds a face in each half of a picture, and none in one that is not wide."""

    whole: WholePicture

    @classmethod
    def of(cls, preprocessing: Any, _: object, options: PipelineOptions) -> _Halves:
        return cls(whole=WholePicture(size=preprocessing.image_size))

    @property
    def size(self) -> tuple[int, int]:
        return self.whole.size

    def __call__(self, data: Path | bytes) -> Prepared:
        from faceidx.images.decode import decode
        from faceidx.images.preprocess import fit

        pixels = decode(data)
        width = pixels.shape[1]
        parts = [pixels[:, : width // 2], pixels[:, width // 2 :]] if width > 16 else []
        crops = [fit(part, self.size) for part in parts]
        found = np.zeros(len(crops), FACE)
        found["boxes"] = np.arange(len(crops))[:, None]
        return Prepared(np.array(crops, np.uint8).reshape(-1, *self.size, 3), found)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    root = tmp_path / "wide"
    for number in range(8):
        draw(root / f"p{number // 2}" / f"{number}.png", seed=number, size=(16, 32))
    draw(root / "p1" / "a#1.png", seed=50, size=(16, 32))
    draw(root / "p1" / "narrow.png", seed=51)
    for name in ("a$.png", "a.png", "a!.png"):  # `#` is stored as `%23`, which comes after them
        draw(root / "p1" / name, seed=len(name), size=(16, 32))
    (root / "p2" / "no#.png").write_text("no picture")
    return root


def test_each_of_several_faces_is_a_row_and_updates_keep_them_together(
    wide: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "prepare_of", _Halves.of)
    monkeypatch.setattr(module, "prepare_of", _Halves.of)
    faces = PipelineOptions(detect="all", batch_size=3)
    out = tmp_path / "out.h5"
    result = embed(_options(wide, out, pipeline=faces))
    assert {
        name: result[name] for name in ("images", "embedded", "faces", "failed", "no_face")
    } == {
        "images": 14,
        "embedded": 12,
        "faces": 24,
        "failed": 1,
        "no_face": 1,
    }
    with EmbeddingFile(out) as file:
        paths = file.paths()
        assert paths[:4] == ["p0/0.png#1", "p0/0.png#2", "p0/1.png#1", "p0/1.png#2"]
        assert "p1/a%231.png#2" in paths
        assert set(file.identities()) == {""}
        assert file.columns() == sorted([*(FACE.names or ()), "stamps"])
        assert np.asarray(file.column("boxes"))[:, 0].tolist() == [0, 1] * 12
        left = file.left()
        assert [key for key, _ in left.failed] == ["p2/no%23.png"]
        assert left.no_face == ["p1/narrow.png"]
    (wide / "p1" / "2.png").unlink()
    draw(wide / "p1" / "narrow.png", seed=51, size=(16, 40))
    draw(wide / "p0" / "00.png", seed=52, size=(16, 32))
    updated = _update(wide, out, pipeline=faces)
    assert (updated["kept"], updated["removed"], updated["faces"]) == (11, 1, 26)
    embed(_options(wide, tmp_path / "fresh.h5", pipeline=faces))
    assert _content(out) == _content(tmp_path / "fresh.h5")
    named = replace(faces, keep_identity=True)
    embed(_options(wide, tmp_path / "named.h5", pipeline=named))
    with EmbeddingFile(tmp_path / "named.h5") as file:
        assert set(file.identities()) == {"p0", "p1", "p2", "p3"}
    with pytest.raises(InputError, match="keep_identity was True, now None"):
        _update(wide, tmp_path / "named.h5", pipeline=faces)
