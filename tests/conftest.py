"""What all tests share: real faces where at hand, a tiny model, pictures, and the command line."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import FaceModel

# The tests are of what a CPU does, bit for bit, but for those in tests/gpu.
if not os.environ.get("FACEIDX_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

HALF = (0.5, 0.5, 0.5)
FAKE_SIZE, FAKE_DIM = (16, 16), 8


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real faces beside the checkout."""
    if not _SHARED.is_dir():
        pytest.skip(f"the real faces are not at hand ({_SHARED} is no folder)")
    return _SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what commands remember of this machine out of the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


# --- models ------------------------------------------------------------------------------------


class FakeModel(FaceModel):
    """A model whose embedding is a pure function of a picture's pixels: a fixed projection."""

    def __init__(self, *, dim: int = FAKE_DIM, size: tuple[int, int] = FAKE_SIZE) -> None:
        super().__init__(
            name="fake",
            arch="fake",
            embedding_dim=dim,
            preprocessing=Preprocessing(image_size=size, color="rgb", mean=HALF, std=HALF),
            weights="0" * 64,
            engine="torch",
            device="cpu",
            precision="fp32",
        )
        self.projection = np.random.default_rng(0).normal(size=(size[0] * size[1] * 3, dim))
        self.batches: list[int] = []

    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        assert pictures.dtype == np.uint8
        self.batches.append(len(pictures))
        # Picture by picture: BLAS rounds differently for batches of other sizes.
        rows = [picture.reshape(-1) / 255.0 @ self.projection for picture in pictures]
        return np.array(rows, dtype=np.float32)


@pytest.fixture
def fake_model() -> FakeModel:
    return FakeModel()


@pytest.fixture(scope="session")
def fake_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model file: an untrained MobileFaceNet of 16 pixels with a classifier of 3 people."""
    import torch

    from faceidx.models.file import ModelFile, write_model
    from faceidx.models.record import Head, ModelRecord
    from faceidx.models.registry import create_backbone

    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = create_backbone("mobilefacenet", embedding_dim=FAKE_DIM, image_size=FAKE_SIZE)
        head = {"weight": torch.randn(3, FAKE_DIM), "bias": torch.randn(3)}
    record = ModelRecord(
        arch="mobilefacenet",
        embedding_dim=FAKE_DIM,
        preprocessing=Preprocessing(image_size=FAKE_SIZE, color="rgb", mean=HALF, std=HALF),
        template="arcface",
        class_names=["anna", "bert", "chloé"],
        head=Head(loss="softmax"),
        training={"epochs": 0},
    )
    write_model(path, ModelFile(record=record, backbone=backbone.state_dict(), head=head))
    return path


# --- pictures ----------------------------------------------------------------------------------


def draw(path: Path | bytes, *, seed: int, size: tuple[int, int] = FAKE_SIZE) -> None:
    """Write a PNG of noise, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    target = Path(os.fsdecode(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        Image.fromarray(pixels).save(file, "PNG")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 11 pictures: five people with two each, and one of nobody."""
    root = tmp_path / "pictures"
    for number in range(10):
        draw(root / f"p{number // 2}" / f"{number}.png", seed=number)
    draw(root / "nobody.png", seed=10)
    return root


# --- the command line --------------------------------------------------------------------------


class RunCli:
    """Runs `faceidx ...` in this process as the console script would, exit code included."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
    ) -> None:
        self._monkeypatch, self._capfd, self._words = monkeypatch, capfd, words

    def of(self, *words: str) -> RunCli:
        """The same, with the first words given once and for all."""
        return RunCli(self._monkeypatch, self._capfd, *self._words, *words)

    def ended(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run to whatever end."""
        from faceidx.cli import run

        arguments = ["faceidx", *self._words, *map(str, words)]
        self._monkeypatch.setattr(sys, "argv", arguments)
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = self._capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, out, err)

    def __call__(self, *words: object, code: int = 0) -> tuple[str, str]:
        """Run, demand an exit code, and return what stands on stdout and stderr."""
        done = self.ended(*words)
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def json(self, *words: object, code: int = 0) -> dict[str, Any]:
        """Run with `--json` and return the one object on stdout."""
        out, _ = self(*words, "--json", code=code)
        result = json.loads(out, parse_constant=_refuse)
        assert isinstance(result, dict)
        return result


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[RunCli]:
    """The command line; what it changes in the process is changed back: umask, logging, SIGINT."""
    interrupt = signal.getsignal(signal.SIGINT)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    umask = os.umask(0o077)
    os.umask(umask)
    yield RunCli(monkeypatch, capfd)
    os.umask(umask)
    signal.signal(signal.SIGINT, interrupt)
    root.handlers[:] = handlers
    root.setLevel(level)
