"""What changes under a run, or between a run and the next: nothing is lost and all is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from faceidx.embedding import embed as module
from faceidx.embedding import shards
from faceidx.embedding.batches import Part
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions, embed_parts
from faceidx.embedding.store import EmbeddingFile
from faceidx.errors import InputError
from faceidx.images.sources import open_source
from faceidx.models.open import ModelOptions
from tests.conftest import FakeModel, draw
from tests.embedding.test_embed import _content


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 3)


def _options(pictures: Path, out: Path, model: Path, **changes: Any) -> EmbedOptions:
    pipeline = PipelineOptions(batch_size=8)
    options = ModelOptions(path=model, device="cpu", engine="torch", precision="fp32")
    return EmbedOptions(images=pictures, out=out, model=options, pipeline=pipeline, **changes)


def _stopped_after_one_shard(options: EmbedOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    write = shards.write_shard

    def stopping(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", stopping)
        with pytest.raises(KeyboardInterrupt):
            embed(options)


def test_work_that_was_finished_and_not_removed_is_in_nobodys_way(
    pictures: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for changes in ({}, {"update": True}):
        draw(pictures / "p2" / f"new{len(changes)}.png", seed=78)
        with monkeypatch.context() as patch:
            patch.setattr(module, "remove_folder", killed)
            with pytest.raises(KeyboardInterrupt):
                embed(_options(pictures, out, fake_model_file, **changes))
        assert (tmp_path / "out.h5.partial").exists()
    draw(pictures / "p2" / "last.png", seed=79)
    assert embed(_options(pictures, out, fake_model_file, update=True))["kept"] == 13
    assert not (tmp_path / "out.h5.partial").exists()


def test_a_folder_of_the_users_own_is_left_alone(
    pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out.h5.partial"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds something else; move it away"):
            embed(_options(pictures, tmp_path / "out.h5", fake_model_file, overwrite=overwrite))
    assert (folder / "thesis.txt").read_text() == "years of work"
    (folder / "thesis.txt").rename(folder / ".faceidx-tmp-0123456789ab-job.json")
    assert embed(_options(pictures, tmp_path / "out.h5", fake_model_file))["embedded"] == 11


@pytest.mark.parametrize("which", ["list", "model"])
def test_what_a_file_is_made_of_is_not_replaced_by_it(
    which: str, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    listed, model = tmp_path / "list.txt", tmp_path / "model.safetensors"
    listed.write_text("p0/0.png\n")
    shutil.copy(fake_model_file, model)
    out = listed if which == "list" else model
    before = out.read_bytes()
    with pytest.raises(InputError, match="itself; give another path"):
        embed(_options(listed, out, model, root=pictures, overwrite=True))
    assert out.read_bytes() == before


def test_a_picture_that_disappears_meanwhile_is_listed_with_the_reason(
    pictures: Path, fake_model: FakeModel
) -> None:
    listed = open_source(pictures).pictures

    def parts() -> Any:
        (pictures / "p2" / "4.png").unlink()
        yield Part(pictures=listed)

    _, found = next(embed_parts(parts(), fake_model, PipelineOptions(), total=len(listed)))
    assert found.left.failed == [("p2/4.png", "no such file")]
    assert len(found.paths) == len(listed) - 1


def test_another_model_under_the_same_name_is_refused_and_the_first_one_finishes(
    pictures: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from faceidx.models.file import read_model, write_model

    model, out = tmp_path / "model.safetensors", tmp_path / "out.h5"
    shutil.copy(fake_model_file, model)
    options = _options(pictures, out, model)
    embed(_options(pictures, tmp_path / "unbroken.h5", model))
    _stopped_after_one_shard(options, monkeypatch)
    content = read_model(model)
    name, weight = next(item for item in content.backbone.items() if item[1].ndim == 4)
    content.backbone[name] = weight + torch.ones(())
    write_model(model, content)
    with pytest.raises(InputError, match="unfinished work with other options: fingerprint was"):
        embed(options)
    assert not out.exists()
    shutil.copy(fake_model_file, model)
    assert embed(options)["resumed"] > 0
    assert _content(out) == _content(tmp_path / "unbroken.h5")


def test_the_engine_and_batch_of_unfinished_work_are_taken_up_again(
    pictures: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    first = _options(pictures, out, fake_model_file)
    first.model.precision = "bf16"
    _stopped_after_one_shard(first, monkeypatch)
    later = _options(pictures, out, fake_model_file)
    later.model.engine = later.model.precision = "auto"
    later.pipeline.batch_size = None
    result = embed(later)
    assert result["resumed"] > 0
    assert (result["engine"], result["precision"]) == ("torch", "bf16")
    assert result["batch_size"] == 8
    assert 0.9 < result["fidelity"]["least"] <= 1
    with EmbeddingFile(out) as file:
        assert '"least"' in file.attribute("fidelity")


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_done(
    pictures: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    access = os.access

    def denied(path: Any, mode: int, **kwargs: Any) -> bool:
        return Path(path) != closed and access(path, mode, **kwargs)

    monkeypatch.setattr(os, "access", denied)  # the tests may run as root, whom no mode stops
    with pytest.raises(InputError, match="cannot be written to"):
        embed(_options(pictures, closed / "out.h5", fake_model_file))
    assert list(closed.iterdir()) == []


def test_pictures_that_come_later_are_part_of_what_goes_on(
    pictures: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    for number in range(20):
        draw(pictures / "q" / f"{number}.png", seed=number)
    options = _options(pictures, out, fake_model_file)
    _stopped_after_one_shard(options, monkeypatch)
    draw(pictures / "q" / "late.png", seed=99)
    result = embed(options)
    assert result["resumed"] > 0
    assert result["embedded"] == 32
    embed(_options(pictures, tmp_path / "fresh.h5", fake_model_file))
    assert _content(out) == _content(tmp_path / "fresh.h5")
