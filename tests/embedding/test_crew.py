from __future__ import annotations

import shutil
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceidx.children import Child
from faceidx.embedding import devices, feeders, making, shards
from faceidx.embedding import embed as module_of_embed
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.making import Crew
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.errors import InputError, JobError
from faceidx.images.pictures import Picture
from faceidx.models.open import ModelOptions
from faceidx.models.torch_model import TorchModel
from faceidx.progress import Progress
from tests.conftest import FakeModel, draw
from tests.embedding.test_embed import _content


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty pictures in a dozen shards."""
    monkeypatch.setattr(shards, "SHARD_SIZE", 3)
    for number in range(40):
        draw(tmp_path / "many" / f"{number:02}.png", seed=number)
    (tmp_path / "many" / "broken.png").write_text("no picture")
    return tmp_path / "many"


def _options(images: Path, out: Path, model: Path) -> EmbedOptions:
    options = ModelOptions(path=model, device="cpu", engine="torch", precision="fp32")
    return EmbedOptions(
        images=images, out=out, model=options, pipeline=PipelineOptions(batch_size=4)
    )


_CREWS = {
    "two devices": (["cpu", "cpu"], 1),
    "three that feed one": (["cpu"], 3),
    "two that feed each of two": (["cpu", "cpu"], 2),
}


def _as_crew(monkeypatch: pytest.MonkeyPatch, devices: list[str], feeders: int) -> None:
    monkeypatch.setattr(module_of_embed, "crew_for", lambda *_: Crew(devices, feeders))


@pytest.mark.parametrize(
    ("device", "gpus", "rate", "cores", "pictures", "expected"),
    [
        ("cpu", 2, 20_000.0, 64, 10**7, ("cpu", 1, 1)),
        ("cuda", 1, 20_000.0, 16, 10**7, ("cuda:0", 1, 4)),
        ("cuda", 1, 20_000.0, 10, 10**7, ("cuda:0", 1, 3)),
        ("cuda", 1, 20_000.0, 16, 25_000, ("cuda:0", 1, 2)),
        ("cuda", 1, 20_000.0, 16, 5_000, ("cuda:0", 1, 1)),
        ("cuda", 1, 3_000.0, 16, 10**7, ("cuda:0", 1, 1)),
        ("cuda", 1, None, 16, 10**7, ("cuda:0", 1, 1)),
        ("cuda", 2, 20_000.0, 16, 10**7, ("cuda:0", 2, 2)),
    ],
)
def test_a_gpu_faster_than_a_process_is_fed_by_several(
    fake_model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: int,
    rate: float | None,
    cores: int,
    pictures: int,
    expected: tuple[str, int, int],
) -> None:
    fake_model.device, fake_model.rate = device, rate
    monkeypatch.setattr(making, "all_devices", lambda _: [f"cuda:{n}" for n in range(gpus)])
    monkeypatch.setattr(making, "usable_cores", lambda: cores)
    crew = making.crew_for(fake_model, ModelOptions(path=Path("m")), pictures)
    assert (crew.devices[0], len(crew.devices), crew.feeders) == expected
    assert crew.several == (expected[1:] != (1, 1))


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        (None, "cuda:2", ("2", "cuda")),
        ("", "cuda:2", ("2", "cuda")),
        ("3, 5", "cuda:1", ("5", "cuda")),
        ("GPU-8932f937,GPU-7a1", "cuda:1", ("GPU-7a1", "cuda")),
        ("3", "cuda:1", (None, "cuda:1")),  # whatever that may be
        ("3", "cuda", (None, "cuda")),
        ("3", "cpu", (None, "cpu")),
    ],
)
def test_a_process_on_one_of_several_gpus_sees_that_one_alone(
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    device: str,
    expected: tuple[str | None, str],
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment, there = devices.seen_alone(device)
    assert (environment.get("CUDA_VISIBLE_DEVICES"), there) == expected


@pytest.mark.parametrize(
    ("crew", "flip"), [(name, number == 1) for number, name in enumerate(_CREWS)]
)
def test_several_processes_give_what_one_gives(
    crew: str,
    flip: bool,
    many: Path,
    fake_model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def options(name: str) -> EmbedOptions:
        made = _options(many, tmp_path / name, fake_model_file)
        made.pipeline.flip = flip
        return made

    embed(options("one.h5"))
    _as_crew(monkeypatch, *_CREWS[crew])
    reports: list[Progress] = []
    result = embed(options("several.h5"), reports.append)
    assert (result["embedded"], result["failed"]) == (40, 1)
    assert [r.done for r in reports] == sorted(r.done for r in reports)
    assert reports[-1].done == 41
    assert any(r.note == "1 failed" for r in reports)
    assert result["waited"]["model"] > 0
    assert _content(tmp_path / "several.h5") == _content(tmp_path / "one.h5")


def test_what_goes_wrong_in_a_process_is_the_error_of_the_job(
    many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_crew(monkeypatch, ["cpu", "cuda:99"], 1)
    with pytest.raises(InputError, match="--device cuda: torch finds no GPU here"):
        embed(_options(many, tmp_path / "two.h5", fake_model_file))
    monkeypatch.undo()
    assert embed(_options(many, tmp_path / "two.h5", fake_model_file))["embedded"] == 40


@pytest.mark.parametrize("when", ["begun", "waited for"])
def test_what_goes_wrong_in_the_model_that_is_fed_is_the_error_of_the_job(
    when: str, many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, batches = TorchModel.begin, count(1)

    def failing(self: TorchModel, pictures: np.ndarray, *, flip: bool = False) -> Any:
        rows = begin(self, pictures, flip=flip)
        if next(batches) < 4:
            return rows
        if when == "begun":
            raise JobError("the GPU is out of memory")

        def wait() -> np.ndarray:
            raise JobError("the GPU is out of memory")

        return wait

    with monkeypatch.context() as patch:
        _as_crew(patch, ["cpu"], 2)
        patch.setattr(TorchModel, "begin", failing)
        with pytest.raises(JobError, match="the GPU is out of memory"):
            embed(_options(many, tmp_path / "two.h5", fake_model_file))
    assert embed(_options(many, tmp_path / "two.h5", fake_model_file))["embedded"] == 40


@pytest.mark.parametrize(
    ("module", "crew", "who"),
    [
        (devices, (["cpu", "cpu"], 1), "the process on cpu"),
        (feeders, (["cpu"], 2), "a process that decodes"),
    ],
)
def test_a_process_that_is_killed_is_a_failed_job_that_can_go_on(
    module: Any,
    crew: tuple[list[str], int],
    who: str,
    many: Path,
    fake_model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Doomed(Child):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            time.sleep(0.1)
            self.process.kill()

    with monkeypatch.context() as patch:
        _as_crew(patch, *crew)
        patch.setattr(module, "Child", Doomed)
        with pytest.raises(JobError, match=f"{who} died .*the same command goes on"):
            embed(_options(many, tmp_path / "two.h5", fake_model_file))
    assert embed(_options(many, tmp_path / "two.h5", fake_model_file))["embedded"] == 40


def test_large_shards_are_smaller_towards_the_end_and_stay_where_a_picture_comes() -> None:
    size = shards.shard_size("cuda", 1e6)
    keys = [f"{number:06}" for number in range(400_000)]

    def ends(keys: list[str]) -> tuple[list[str], list[int]]:
        pictures = [Picture(key, "", Path(key)) for key in keys]
        parts = list(shards.split_into_shards(pictures, size))
        assert [part.number for part in parts] == list(range(len(parts)))
        counts = [len(part.pictures) for part in parts]
        assert sum(counts) == len(keys)
        return [part.pictures[-1].key for part in parts], counts

    before, counts = ends(keys)
    assert max(counts) <= 2 * size
    left = len(keys)
    for pictures in counts:
        assert pictures <= max(1024, left // 12)
        left -= pictures
    after, _ = ends([*keys[:200_000], "200000a", *keys[200_000:]])
    assert len(set(before) - set(after)) < len(before) / 4


def test_shards_grow_with_the_rate_and_stay_as_they_were_begun(
    many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shards.shard_size("cpu", None) == shards.shard_size("cpu", 1e6) == shards.SHARD_SIZE
    assert shards.SHARD_SIZE < shards.shard_size("cuda", 1.0) < shards.shard_size("cuda:1", 1e6)
    monkeypatch.setattr(module_of_embed, "shard_size", lambda *_: 5)
    options = _options(many, tmp_path / "out.h5", fake_model_file)
    with monkeypatch.context() as patch:
        patch.setattr(module_of_embed, "merge_shards", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(options)
    monkeypatch.setattr(module_of_embed, "shard_size", lambda _: 7)
    result = embed(options)
    assert (result["embedded"], result["resumed"]) == (40, 41)


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("crew", _CREWS)
def test_several_processes_go_on_with_what_is_whole_and_make_anew_what_is_damaged(
    crew: str,
    many: Path,
    fake_model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    embed(_options(many, tmp_path / "one.h5", fake_model_file))
    options = _options(many, tmp_path / "several.h5", fake_model_file)
    with monkeypatch.context() as patch:
        patch.setattr(module_of_embed, "merge_shards", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(options)
    whole, damaged = sorted((tmp_path / "several.h5.partial").glob("shard-*.h5"))[:2]
    damaged.write_bytes(whole.read_bytes()[:-100])
    _as_crew(monkeypatch, *_CREWS[crew])
    resumed = embed(options)["resumed"]
    assert 41 - shards._LARGEST * shards.SHARD_SIZE <= resumed < 41
    assert caplog.text.count("is damaged and is made anew") == 1
    assert _content(tmp_path / "several.h5") == _content(tmp_path / "one.h5")


def test_several_processes_bring_a_file_up_to_date(
    many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(_options(many, tmp_path / "one.h5", fake_model_file))
    shutil.copy(tmp_path / "one.h5", tmp_path / "several.h5")
    for number in range(20):
        draw(many / "more" / f"{number}.png", seed=number)
    (many / "07.png").unlink()
    for name in ("one.h5", "several.h5"):
        options = _options(many, tmp_path / name, fake_model_file)
        options.update = True
        result = embed(options)
        assert (result["embedded"], result["kept"], result["removed"]) == (59, 39, 1)
        _as_crew(monkeypatch, *_CREWS["three that feed one"])
    assert _content(tmp_path / "several.h5") == _content(tmp_path / "one.h5")


def test_the_process_with_the_model_leaves_the_files_of_pictures_to_those_that_feed_it(
    many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_: Picture) -> str:
        raise AssertionError("a picture's file was asked for its size and time")

    monkeypatch.setattr(Picture, "stamp", asked)
    options = _options(many, tmp_path / "out.h5", fake_model_file)
    with pytest.raises(AssertionError):
        embed(options)
    _as_crew(monkeypatch, *_CREWS["three that feed one"])
    assert embed(options)["embedded"] == 40
