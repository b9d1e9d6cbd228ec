"""A few small people to train on: each has a pattern of colour, each picture its own noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from faceidx.training.options import TrainOptions


def paint_people(folder: Path, people: int, pictures: int, side: int = 32, seed: int = 0) -> Path:
    """Write `people` folders of `pictures` PNG files that a small network can tell apart."""
    for person in range(people):
        traits = np.random.default_rng([seed, person]).uniform(40, 215, (4, 4, 3))
        pattern = traits.repeat(side // 4, 0).repeat(side // 4, 1)
        home = folder / f"person_{person:02d}"
        home.mkdir(parents=True)
        for number in range(pictures):
            noise = np.random.default_rng([seed, person, number]).normal(0, 25, pattern.shape)
            pixels = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people with ten pictures each."""
    return paint_people(tmp_path_factory.mktemp("data") / "people", 8, 10)


def quick(data: Path, out: Path, **more: object) -> TrainOptions:
    """Options of a run that takes a second or two."""
    settings = {
        "arch": "mobilefacenet",
        "image_size": 32,
        "embedding_dim": 16,
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.05,
        "warmup_epochs": 0.5,
        "precision": "fp32",
        "device": "cpu",
        "seed": 3,
        **more,
    }
    return TrainOptions(data=data, out=out, **settings)  # type: ignore[arg-type]


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, times aside."""
    times = {"seconds", "images_per_second"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, bit for bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)
