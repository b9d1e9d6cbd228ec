"""Who decodes JPEGs, with the CPU in place of a GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceidx.embedding import decoding, shards
from faceidx.embedding import embed as module
from faceidx.embedding.decoding import settle_decoder
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import EmbeddingFile
from faceidx.errors import InputError
from faceidx.images.sources import open_source
from faceidx.models.open import ModelOptions, open_model
from tests.conftest import FAKE_SIZE

pytest.importorskip("torchcodec", reason="torchcodec is not there")


@pytest.fixture
def jpegs(tmp_path: Path) -> Path:
    folder = tmp_path / "jpegs"
    folder.mkdir()
    for seed in range(30):
        pixels = np.random.default_rng(seed).integers(0, 256, (*FAKE_SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:02}.jpg")
    (folder / "odd.jpg").write_text("this is no picture")
    return folder


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The CPU passes for a GPU, and every job is worth a trial."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "_is_gpu", lambda _: True)
    monkeypatch.setattr(decoding, "_WORTH_TRYING", 10)


@pytest.fixture
def options(fake_model_file: Path) -> ModelOptions:
    return ModelOptions(path=fake_model_file, device="cpu")


def _rates(monkeypatch: pytest.MonkeyPatch, *, cores: float, card: float) -> list[str]:
    """Have both ways be so fast; returns what was tried."""
    tried: list[str] = []

    def rate(_: object, pipeline: PipelineOptions) -> float:
        tried.append(pipeline.card)
        return card if pipeline.card else cores

    monkeypatch.setattr(decoding._Trial, "_rate", rate)
    return tried


def _card(
    jpegs: Path, options: ModelOptions, pipeline: PipelineOptions | None = None, **before: Any
) -> str:
    return settle_decoder(
        open_source(jpegs).pictures,
        open_model(options),
        options,
        pipeline or PipelineOptions(),
        before=before,
        beside=jpegs.parent / "out.h5",
    ).card


def test_a_faster_gpu_is_taken_and_the_trial_remembered(
    gpu: None, jpegs: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _rates(monkeypatch, cores=1000.0, card=1200.0)
    assert [_card(jpegs, options) for _ in range(2)] == ["cpu", "cpu"]
    assert tried == ["", "cpu"]


def test_one_that_gains_too_little_is_not(
    gpu: None, jpegs: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rates(monkeypatch, cores=1000.0, card=1050.0)
    assert _card(jpegs, options) == ""


def test_nor_one_that_changes_embeddings(
    gpu: None, jpegs: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rates(monkeypatch, cores=1000.0, card=2000.0)
    monkeypatch.setattr(decoding, "LEAST_COSINE", 1.01)
    assert _card(jpegs, options) == ""


def test_nor_one_that_kills_its_decoder(
    gpu: None, jpegs: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _rates(monkeypatch, cores=1000.0, card=2000.0)
    monkeypatch.setattr(decoding, "survives", lambda *_: False)
    assert _card(jpegs, options) == ""
    assert tried == []


def test_nothing_is_tried_for_few_pictures_faces_to_be_found_or_no_gpu(
    gpu: None, jpegs: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _rates(monkeypatch, cores=1000.0, card=2000.0)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_WORTH_TRYING", 1000)
        assert _card(jpegs, options) == ""
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "prepare_of", lambda *_: object())
        assert _card(jpegs, options) == ""
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "can_decode", lambda _: False)
        assert _card(jpegs, options) == ""
    monkeypatch.undo()
    assert _card(jpegs, options) == ""
    assert tried == []


def test_what_was_begun_goes_on_with_its_decoder(
    gpu: None, jpegs: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _rates(monkeypatch, cores=1000.0, card=2000.0)
    assert _card(jpegs, options, decoder="nvjpeg") == "cpu"
    assert _card(jpegs, options, engine="torch") == ""
    assert tried == []


def test_both_are_tried_for_real_and_leave_nothing_behind(
    gpu: None,
    jpegs: Path,
    options: ModelOptions,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(decoding, "_GAIN", 1e-9)
    monkeypatch.setattr(shards, "SHARD_SIZE", 3)
    names = sorted(jpegs.parent.iterdir())
    with caplog.at_level(logging.INFO):
        assert _card(jpegs, options) == "cpu"
    assert "'cores': " in caplog.text and "'card': " in caplog.text
    assert set(jpegs.parent.iterdir()) - set(names) <= {jpegs.parent / "cache"}


def test_embeddings_say_who_decoded_and_go_on_with_no_other(
    gpu: None,
    jpegs: Path,
    options: ModelOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _rates(monkeypatch, cores=1000.0, card=2000.0)
    by_card, by_cores = tmp_path / "card.h5", tmp_path / "cores.h5"
    with monkeypatch.context() as patch:
        patch.setattr(module, "merge_shards", _pulled_plug)
        with pytest.raises(RuntimeError):
            embed(EmbedOptions(images=jpegs, out=by_card, model=options))
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "can_decode", lambda _: False)
        with pytest.raises(InputError, match="decoder"):
            embed(EmbedOptions(images=jpegs, out=by_card, model=options))
        embed(EmbedOptions(images=jpegs, out=by_cores, model=options))
    assert embed(EmbedOptions(images=jpegs, out=by_card, model=options))["resumed"] == 31
    with EmbeddingFile(by_card) as card, EmbeddingFile(by_cores) as cores:
        assert card.origin.preprocessing["decoder"] == "nvjpeg"
        assert "decoder" not in cores.origin.preprocessing
        assert card.paths() == cores.paths()
        assert card.left().failed == cores.left().failed
        np.testing.assert_array_equal(card.vectors(), cores.vectors())


def _pulled_plug(*_: object, **__: object) -> None:
    raise RuntimeError("the plug was pulled")
