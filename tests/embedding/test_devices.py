from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from faceidx.embedding import devices, shards
from faceidx.embedding import embed as module
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.errors import InputError, JobError
from faceidx.models.open import ModelOptions
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


def _two(*_: Any) -> list[str]:
    return ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("device", "gpus", "rate", "cores", "pictures", "expected"),
    [
        ("cpu", 2, 20_000.0, 64, 10**7, {"cpu": 1}),
        ("cuda", 1, 20_000.0, 16, 10**7, {"cuda:0": 3}),
        ("cuda", 1, 20_000.0, 10, 10**7, {"cuda:0": 2}),
        ("cuda", 1, 20_000.0, 16, 50_000, {"cuda:0": 1}),
        ("cuda", 1, 3_000.0, 16, 10**7, {"cuda:0": 1}),
        ("cuda", 1, None, 16, 10**7, {"cuda:0": 1}),
        ("cuda", 2, 20_000.0, 16, 10**7, {"cuda:0": 2, "cuda:1": 2}),
    ],
)
def test_a_gpu_faster_than_a_process_gets_several(
    fake_model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: int,
    rate: float | None,
    cores: int,
    pictures: int,
    expected: dict[str, int],
) -> None:
    fake_model.device, fake_model.rate = device, rate
    monkeypatch.setattr(module, "all_devices", lambda _: [f"cuda:{n}" for n in range(gpus)])
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    found = module._devices(fake_model, ModelOptions(path=Path("m")), pictures)
    assert Counter(found) == expected


def test_two_devices_give_what_one_gives(
    many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(_options(many, tmp_path / "one.h5", fake_model_file))
    monkeypatch.setattr(module, "_devices", _two)
    reports: list[Progress] = []
    result = embed(_options(many, tmp_path / "two.h5", fake_model_file), reports.append)
    assert (result["embedded"], result["failed"]) == (40, 1)
    assert [r.done for r in reports] == sorted(r.done for r in reports)
    assert reports[-1].done == 41
    assert result["waited"]["model"] > 0
    assert _content(tmp_path / "two.h5") == _content(tmp_path / "one.h5")


def test_what_goes_wrong_in_a_process_is_the_error_of_the_job(
    many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_devices", lambda *_: ["cpu", "cuda:99"])
    with pytest.raises(InputError, match="--device cuda:99"):
        embed(_options(many, tmp_path / "two.h5", fake_model_file))
    monkeypatch.undo()
    assert embed(_options(many, tmp_path / "two.h5", fake_model_file))["embedded"] == 40


def test_a_process_that_is_killed_is_a_failed_job_that_can_go_on(
    many: Path, fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doomed(devices.Child):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            time.sleep(0.1)
            self.process.kill()

    with monkeypatch.context() as patch:
        patch.setattr(module, "_devices", _two)
        patch.setattr(devices, "Child", Doomed)
        with pytest.raises(JobError, match=r"the process on cpu died .*the same command goes on"):
            embed(_options(many, tmp_path / "two.h5", fake_model_file))
    assert embed(_options(many, tmp_path / "two.h5", fake_model_file))["embedded"] == 40
