from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import stat
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from faceidx.embedding import embed as module
from faceidx.embedding import shards
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import EmbeddingFile
from faceidx.errors import InputError, JobError
from faceidx.files import writer_lock
from faceidx.images.sources import Source, open_source, unescape_key
from faceidx.models import open as opening
from faceidx.models.open import ModelOptions
from faceidx.progress import Progress
from tests.conftest import FakeModel, draw
from tests.models.onnx_graphs import reshape_graph

_MODEL = ModelOptions(path=Path("fake"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of three on average, so that a handful of pictures make several."""
    monkeypatch.setattr(shards, "SHARD_SIZE", 3)


def _options(pictures: Path, out: Path, **changes: Any) -> EmbedOptions:
    return EmbedOptions(images=pictures, out=out, **{"model": _MODEL} | changes)


def _content(path: Path) -> dict[str, Any]:
    """Every dataset and attribute but the time."""
    found: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = (str(node.dtype), node[()].tolist())

    with h5py.File(path) as file:
        file.visititems(visit)
        found["attributes"] = {k: v for k, v in file.attrs.items() if k != "created"}
    return found


def _shards(pictures: Path) -> list[int]:
    """How many pictures each shard holds."""
    listed = open_source(pictures).pictures
    return [len(part.pictures) for part in shards.split_into_shards(listed)]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what comes out ----------------------------------------------------------------------------


def test_a_model_file_is_read_once(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = reshape_graph(tmp_path / "m.onnx", batch="n", side=16, target=[-1, 768])
    read: list[Path] = []
    read_onnx = opening.read_onnx
    monkeypatch.setattr(opening, "read_onnx", lambda p: read.append(p) or read_onnx(p))
    wanted = ModelOptions(path=onnx, preset="insightface", image_size=16)
    embed(_options(pictures, tmp_path / "o.h5", model=wanted))
    assert read == [onnx]


def test_the_output_is_what_the_format_promises(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    (pictures / "p1" / "text.jpg").write_text("this is no picture")
    (pictures / "readme.md").touch()
    out = tmp_path / "out.h5"
    result = embed(_options(pictures, out))
    assert result.pop("seconds") > 0
    assert result.pop("images_per_second") > 0
    assert all(seconds >= 0 for seconds in result.pop("waited").values())
    assert result == {
        "out": str(out),
        "images": 12,
        "embedded": 11,
        "faces": 11,
        "failed": 1,
        "no_face": 0,
        "ignored": 1,
        "resumed": 0,
        "kept": 0,
        "removed": 0,
        "dim": 8,
        "model": "fake",
        "device": "cpu",
        "engine": "torch",
        "precision": "fp32",
        "compiled": False,
        "batch_size": 32,
        "fidelity": {"least": 1.0, "mean": 1.0, "pictures": 0},
    }
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert _names(tmp_path) == ["out.h5", "pictures"]
    with h5py.File(out) as file:
        names: list[str] = []
        file.visit(names.append)
        assert sorted(names) == [
            "embeddings",
            "failed",
            "failed/paths",
            "failed/reasons",
            "failed/stamps",
            "identities",
            "no_face",
            "no_face/paths",
            "no_face/stamps",
            "norms",
            "paths",
            "stamps",
        ]
        assert set(file.attrs) == {
            "format",
            "version",
            "model",
            "fingerprint",
            "preprocessing",
            "fidelity",
            "created",
        }
        assert file["embeddings"].shape == (11, 8)
        lengths = np.linalg.norm(file["embeddings"][()], axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)
        assert file["norms"].shape == (11,)
        assert list(file["failed/paths"].asstr()) == ["p1/text.jpg"]
        assert len(file["no_face/paths"]) == 0


def test_rows_are_in_the_order_of_the_bytes_of_the_keys(model: FakeModel, tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a.png", "B.png", "é.png", "a-b/1.png", "￿.png", "𐀀.png"]
    for number, name in enumerate(names):
        draw(tmp_path / "in" / name, seed=number)
    embed(_options(tmp_path / "in", tmp_path / "out.h5"))
    with EmbeddingFile(tmp_path / "out.h5") as file:
        assert file.paths() == sorted(names, key=str.encode)


def test_odd_names_survive(model: FakeModel, tmp_path: Path) -> None:
    names = [
        b"line\nbreak.png",
        b"latin\xe9/\xff.png",
        b"100%25/%41.png",
        b"\x1b[31m\x9b.png",
        b"x" * 251 + b".png",
        b"' OR 1=1 --<script>.png",
        " 顔 .png".encode(),
    ]
    for number, name in enumerate(names):
        draw(os.fsencode(tmp_path / "in") + b"/" + name, seed=number)
    bad = os.fsdecode(b"bad\xff\n.jpg")
    (tmp_path / "in" / bad).write_text("no picture")
    embed(_options(tmp_path / "in", tmp_path / "out.h5"))
    with EmbeddingFile(tmp_path / "out.h5") as file:
        assert sorted(map(unescape_key, file.paths())) == sorted(names)
        assert [unescape_key(key) for key, _ in file.left().failed] == [b"bad\xff\n.jpg"]
        by_key = dict(zip(file.paths(), file.identities(), strict=True))
    assert by_key["latin%E9/%FF.png"] == "latin%E9"


def test_half_precision_rounds_the_same_embeddings(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    embed(_options(pictures, tmp_path / "32.h5"))
    embed(_options(pictures, tmp_path / "16.h5", dtype="float16"))
    with h5py.File(tmp_path / "32.h5") as full, h5py.File(tmp_path / "16.h5") as half:
        assert half["embeddings"].dtype == np.float16
        np.testing.assert_array_equal(
            half["embeddings"][()], full["embeddings"][()].astype(np.float16)
        )
        np.testing.assert_array_equal(half["norms"][()], full["norms"][()])


def test_a_flip_changes_fingerprint_and_embeddings(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    embed(_options(pictures, tmp_path / "plain.h5"))
    embed(_options(pictures, tmp_path / "flip.h5", pipeline=PipelineOptions(flip=True)))
    with EmbeddingFile(tmp_path / "plain.h5") as plain, EmbeddingFile(tmp_path / "flip.h5") as flip:
        assert plain.origin.fingerprint != flip.origin.fingerprint
        assert flip.origin.fingerprint == model.fingerprint(flip=True)
        assert not np.allclose(plain.vectors(), flip.vectors(), atol=1e-2)


def test_the_size_of_a_shard_is_not_seen_in_the_output(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "p1" / "a.jpg").write_text("no picture")
    embed(_options(pictures, tmp_path / "small.h5"))
    monkeypatch.setattr(shards, "SHARD_SIZE", 1000)
    embed(_options(pictures, tmp_path / "large.h5"))
    assert _content(tmp_path / "small.h5") == _content(tmp_path / "large.h5")


def test_whole_photos_draw_a_warning_that_names_none(
    model: FakeModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        draw(tmp_path / "in" / f"holiday{number}.png", seed=number, size=(90, 60))
    with caplog.at_level(logging.WARNING):
        embed(_options(tmp_path / "in", tmp_path / "out.h5"))
    assert "4 of 4 pictures are far from the model's shape (16 x 16)" in caplog.text
    assert "holiday" not in caplog.text


def test_photos_that_an_update_adds_are_not_outnumbered_by_what_is_there(
    pictures: Path, model: FakeModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embed(_options(pictures, tmp_path / "out.h5"))
    draw(pictures / "p1" / "photo.png", seed=1, size=(90, 60))
    embed(_options(pictures, tmp_path / "out.h5", update=True))
    assert "1 of 1 pictures are far from the model's shape" in caplog.text


def test_progress_runs_over_all_shards(pictures: Path, model: FakeModel, tmp_path: Path) -> None:
    reports: list[Progress] = []
    embed(_options(pictures, tmp_path / "out.h5"), reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert (done[-1], {report.total for report in reports}) == (11, {11})


# --- what goes wrong ---------------------------------------------------------------------------


def test_when_every_picture_fails_there_is_an_error_and_no_output(
    model: FakeModel, tmp_path: Path
) -> None:
    for number in range(4):
        path = tmp_path / "in" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_text("no picture")
    with pytest.raises(JobError, match="none of 4 pictures could be embedded; the first: "):
        embed(_options(tmp_path / "in", tmp_path / "out.h5"))
    assert _names(tmp_path) == ["in"]


def test_wrong_input_is_an_error_before_anything_is_written(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "finished.h5").touch()
    before = _names(tmp_path)
    for images, out, message in (
        (tmp_path / "empty", "out.h5", "holds no pictures"),
        (tmp_path / "none", "out.h5", "no such file or folder"),
        (pictures, "none/out.h5", "does not exist"),
        (pictures, "finished.h5", "--overwrite"),
        (pictures, "folder.h5", "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            embed(_options(images, tmp_path / out))
    monkeypatch.undo()
    with pytest.raises(InputError, match="no such model file"):
        embed(_options(pictures, tmp_path / "out.h5"))
    assert _names(tmp_path) == before


def test_a_finished_output_is_replaced_with_overwrite_alone(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out))
    first = _content(out)
    shutil.rmtree(pictures / "p0")
    with pytest.raises(InputError, match="--overwrite"):
        embed(_options(pictures, out))
    assert _content(out) == first
    assert embed(_options(pictures, out, overwrite=True))["embedded"] == 9
    assert len(_content(out)["paths"][1]) == 9


def test_an_output_that_another_process_finishes_meanwhile_is_kept(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"

    def slow_open(*_: Any, **__: Any) -> Source:
        out.write_text("theirs")
        return open_source(pictures)

    monkeypatch.setattr(module, "open_source", slow_open)
    with pytest.raises(InputError, match="--overwrite"):
        embed(_options(pictures, out))
    assert out.read_text() == "theirs"


def test_two_writers_of_one_output_are_kept_apart(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    with writer_lock(out), pytest.raises(InputError, match="being written by another process"):
        embed(_options(pictures, out))


# --- going on ----------------------------------------------------------------------------------


class _PulledPlugError(Exception):
    pass


def _interrupt(model: FakeModel, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let the model fail at the batch after so many."""
    raw_embed = model.raw_embed

    def failing(pictures: np.ndarray) -> np.ndarray:
        if len(model.batches) == after:
            raise _PulledPlugError
        return raw_embed(pictures)

    monkeypatch.setattr(model, "raw_embed", failing)


@pytest.mark.parametrize("overwrite", [False, True])
def test_interrupted_work_goes_on_and_redoes_no_committed_shard(
    overwrite: bool,
    pictures: Path,
    model: FakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pictures / "p1" / "text.jpg").write_text("this is no picture")
    out = tmp_path / "out.h5"
    embed(_options(pictures, tmp_path / "unbroken.h5"))
    model.batches.clear()
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=2)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out, overwrite=overwrite))
    assert not out.exists()
    assert _names(tmp_path) == ["out.h5.partial", "pictures", "unbroken.h5"]
    assert stat.S_IMODE((tmp_path / "out.h5.partial").stat().st_mode) == 0o700
    model.batches.clear()
    result = embed(_options(pictures, out, overwrite=overwrite))
    # One picture of twelve fails; two shards are there already.
    sizes = _shards(pictures)
    assert len(sizes) > 2
    assert (result["images"], result["embedded"]) == (12, 11)
    assert result["resumed"] == sum(sizes[:2])
    assert len(model.batches) == len(sizes) - 2
    assert _content(out) == _content(tmp_path / "unbroken.h5")
    assert _names(tmp_path) == ["out.h5", "pictures", "unbroken.h5"]


def test_a_shard_whose_pictures_have_changed_is_done_anew(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=2)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out))
    draw(pictures / "nobody.png", seed=99, size=(16, 15))  # the first key, in the first shard
    model.batches.clear()
    assert embed(_options(pictures, out))["resumed"] == _shards(pictures)[1]
    embed(_options(pictures, tmp_path / "fresh.h5"))
    assert _content(out) == _content(tmp_path / "fresh.h5")


def test_a_picture_that_comes_in_between_costs_one_shard(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    for number in range(100):
        draw(pictures / "more" / f"{number:03}.png", seed=number)

    def paths() -> set[Path | None]:
        parts = shards.split_into_shards(open_source(pictures).pictures)
        return {shards.name_shard(tmp_path, part).path for part in parts}

    before = paths()
    draw(pictures / "more" / "020a.png", seed=1)
    after = paths()
    assert len(before) > 20
    assert len(before - after) == 1
    assert len(after - before) in (1, 2)  # two where the new picture ends a shard


def test_a_shard_that_was_damaged_is_made_anew(
    pictures: Path,
    model: FakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out.h5"
    for number in range(20):
        draw(pictures / "more" / f"{number}.png", seed=number)
    embed(_options(pictures, tmp_path / "unbroken.h5"))
    model.batches.clear()
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=2)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out))
    one, other = sorted((tmp_path / "out.h5.partial").glob("shard-*.h5"))
    with h5py.File(one, "r+") as file:
        file["embeddings"][0, 0] += 0.25
    other.write_bytes(other.read_bytes()[:100])
    result = embed(_options(pictures, out))
    assert result["resumed"] == 0
    assert caplog.text.count("is damaged and is made anew") == 2
    assert _content(out) == _content(tmp_path / "unbroken.h5")


def test_other_options_than_those_of_the_unfinished_work_are_an_error_that_names_them(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=1)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out))
    for changes, message in (
        ({"dtype": "float16"}, "dtype was float32, now float16"),
        ({"pipeline": PipelineOptions(batch_size=7)}, "batch_size was 32, now 7"),
        ({"pipeline": PipelineOptions(max_pixels=999)}, "max_pixels was"),
        ({"pipeline": PipelineOptions(flip=True)}, "flip was False, now True|fingerprint was"),
    ):
        with pytest.raises(InputError, match=message) as error:
            embed(_options(pictures, out, **changes))
        assert "--overwrite" in str(error.value)
    with monkeypatch.context() as patch:
        patch.setattr(model, "weights", "1" * 64)
        with pytest.raises(InputError, match="fingerprint was"):
            embed(_options(pictures, out))
    # Workers change nothing that comes out.
    workers = PipelineOptions(workers=3)
    assert embed(_options(pictures, out, pipeline=workers))["resumed"] == _shards(pictures)[0]


def test_a_clock_that_goes_wrong_costs_no_work(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, out))
    os.utime(out, (2**32, 2**32))
    with monkeypatch.context() as patch:
        model.batches.clear()
        _interrupt(model, patch, after=1)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out, dtype="float16", overwrite=True))
    assert embed(_options(pictures, out, dtype="float16", overwrite=True))["resumed"] > 0


def test_unfinished_work_may_lie_elsewhere_by_a_link(
    pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.h5.partial").symlink_to(tmp_path / "disk")
    embed(_options(pictures, tmp_path / "out.h5"))
    assert _names(tmp_path) == ["out.h5", "pictures"]


def test_the_file_lies_where_a_link_leads_and_so_does_unfinished_work(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out.h5"
    disk.mkdir()
    out.symlink_to(disk / "real.h5")
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=1)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out))
    assert _names(disk) == ["real.h5.partial"]
    assert embed(_options(pictures, out))["embedded"] == 11
    assert (_names(disk), _names(tmp_path)) == (["real.h5"], ["disk", "out.h5", "pictures"])
    assert out.is_symlink()


def test_overwrite_throws_unfinished_work_with_other_options_away(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=1)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out))
    result = embed(_options(pictures, out, dtype="float16", overwrite=True))
    assert (result["resumed"], result["embedded"]) == (0, 11)


def test_nothing_of_work_that_is_thrown_away_is_taken_over(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, small = tmp_path / "out.h5", PipelineOptions(batch_size=7)
    opened: list[ModelOptions] = []
    monkeypatch.setattr(
        module, "choose_model", lambda wanted, *_, **__: opened.append(wanted) or model
    )
    with monkeypatch.context() as patch:
        _interrupt(model, patch, after=1)
        with pytest.raises(_PulledPlugError):
            embed(_options(pictures, out, dtype="float16", pipeline=small))
    flipped = PipelineOptions(flip=True)
    assert embed(_options(pictures, out, pipeline=flipped, overwrite=True))["batch_size"] == 32
    assert (opened[-1].engine, opened[-1].precision) == ("auto", "auto")
    assert _content(out)["embeddings"][0] == "float32"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '"x"', "\ud800", '{"batch_size": "8"}', '{"batch_size": -1}'),
        *('{"shard_size": 2.5}', '{"shard_size": true}', '{"dtype": 16}', '{"engine": []}'),
        '{"precision": ""}',
    ],
)
def test_a_damaged_record_of_the_work_is_an_error_with_a_way_out(
    text: str, pictures: Path, model: FakeModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    (tmp_path / "out.h5.partial").mkdir()
    (tmp_path / "out.h5.partial" / "job.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"job\.json is damaged .*--overwrite"):
        embed(_options(pictures, out))
    embed(_options(pictures, out, overwrite=True))
    assert _names(tmp_path) == ["out.h5", "pictures"]


def test_a_full_disk_is_a_failed_job_and_the_work_goes_on_later(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.h5"
    embed(_options(pictures, tmp_path / "unbroken.h5"))
    pwrite, room = os.pwrite, [60_000]

    def bounded(descriptor: int, data: bytes, offset: int) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data, offset)

    failures = 0
    while not out.exists():
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", bounded)
            try:
                embed(_options(pictures, out))
            except JobError as error:
                assert "No space left on device" in str(error)
                failures += 1
        room[0] = 60_000 * (1 + failures)
        assert failures < 20
    assert failures >= 1
    assert _content(out) == _content(tmp_path / "unbroken.h5")


def test_a_process_killed_at_any_moment_costs_nothing_but_time(
    pictures: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(11, 40):
        draw(pictures / "more" / f"{number}.png", seed=number)
    began = time.monotonic()
    embed(_options(pictures, tmp_path / "unbroken.h5"))
    length = time.monotonic() - began
    chance = random.Random(0)
    out = tmp_path / "out.h5"
    for _ in range(5):
        child = os.fork()
        if child == 0:
            embed(_options(pictures, out, overwrite=True))
            os._exit(0)
        time.sleep(length * chance.uniform(0.05, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # What is there is whole, whenever that was.
        for path in [*tmp_path.glob("out.h5"), *tmp_path.glob("out.h5.partial/shard-*.h5")]:
            with EmbeddingFile(path) as file:
                assert len(file.vectors()) == len(file.paths())
    embed(_options(pictures, out, overwrite=True))
    assert _content(out) == _content(tmp_path / "unbroken.h5")
    assert _names(tmp_path) == ["out.h5", "pictures", "unbroken.h5"]
