"""Photos in, embeddings out: `embed --detect` beside the same steps called one by one.

    python benchmarks/detect.py [FOLDER MODEL.onnx DETECTOR.onnx]

One by one is what people write: OpenCV reads the photo, `FaceDetectorYN` looks at it in full size,
the largest face is warped to ArcFace's template, and onnxruntime embeds a batch of one; both use
all cores as they do by default. Ours is the whole command, file included. The folder is copied
several times over, since opening a model is paid once. The photos of 12 megapixels are made of
those of the folder, enlarged and pasted on soft noise.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import EmbeddingFile
from faceidx.images.detect import open_detector
from faceidx.images.preprocess import PRESETS
from faceidx.images.templates import template_points
from faceidx.models.open import ModelOptions

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_WEIGHTS = _DATA / "weights"
FOLDER, MODEL = _DATA / "lfw-raw", _WEIGHTS / "mobilefacenet_foamliu.onnx"
DETECTOR = _WEIGHTS / "face_detection_yunet_2023mar.onnx"
PRESET, SIZE = "imagenet", (112, 112)
RUNS, COPIES = 3, 8
LARGE, LARGE_SHAPE = 24, (3000, 4000)


def one_by_one(paths: list[Path], model: Path, detector: Path) -> list[np.ndarray | None]:
    """A unit row a photo, None where no face was found."""
    import onnxruntime  # once faceidx has kept it from telling of its use

    network = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), 0.7)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    mean, std = (
        np.asarray(x, np.float32) * 255 for x in (PRESETS[PRESET].mean, PRESETS[PRESET].std)
    )
    points = template_points("arcface", SIZE).astype(np.float32)
    rows: list[np.ndarray | None] = []
    for path in paths:
        photo = cv2.imread(str(path))
        assert photo is not None
        network.setInputSize(photo.shape[1::-1])
        _, faces = network.detect(photo)
        if faces is None:
            rows.append(None)
            continue
        face = faces[(faces[:, 2] * faces[:, 3]).argmax()]
        matrix, _ = cv2.estimateAffinePartial2D(face[4:14].reshape(5, 2), points, method=cv2.LMEDS)
        crop = cv2.warpAffine(photo, matrix, SIZE)[..., ::-1].astype(np.float32)
        batch = ((crop - mean) / std).transpose(2, 0, 1)[None]
        row = session.run(None, {name: np.ascontiguousarray(batch)})[0][0]
        rows.append(row / np.linalg.norm(row))
    return rows


def _photos(folder: Path) -> list[Path]:
    found = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix == ".jpg")


def make_large(folder: Path, out: Path) -> None:
    """Photos of 12 megapixels: faces from a tenth of the photo's height to nearly all of it."""
    files = sorted(folder.rglob("*.jpg"))[::7][:LARGE]
    for number, file in enumerate(files):
        rng = np.random.default_rng(number)
        photo = rng.integers(60, 190, (LARGE_SHAPE[0] // 16, LARGE_SHAPE[1] // 16, 3), np.uint8)
        photo = np.array(cv2.resize(photo, LARGE_SHAPE[::-1], interpolation=cv2.INTER_LINEAR))
        side = int(rng.integers(600, 2800))
        face = cv2.imread(str(file))
        assert face is not None
        picture = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        top, left = (int(rng.integers(0, room - side)) for room in LARGE_SHAPE)
        photo[top : top + side, left : left + side] = picture
        cv2.imwrite(str(out / f"{number:03d}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 92])


def measure(title: str, folder: Path, model: Path, detector: Path, mode: str) -> None:
    paths = _photos(folder)
    seconds: dict[str, list[float]] = {"ours": [], "one by one": []}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        seconds[name].append(time.perf_counter() - began)
        return result

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out.h5"
        options = EmbedOptions(
            images=folder,
            out=out,
            model=ModelOptions(path=model, preset=PRESET),
            pipeline=PipelineOptions(detect=mode, detector=open_detector(detector)),
            overwrite=True,
        )
        for _ in range(RUNS):
            timed("ours", lambda: embed(options))
            theirs = timed("one by one", lambda: one_by_one(paths, model, detector))
        with EmbeddingFile(out) as file:
            ours = dict(zip(file.paths(), file.vectors(), strict=True))
    print(f"\n{title}: {len(paths)} photos, --detect {mode}, median of {RUNS}")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<11} {median:7.2f} s  {len(paths) / median:7.1f} photos/s")
    theirs_median, ours_median = (statistics.median(seconds[n]) for n in ("one by one", "ours"))
    print(f"ratio       {theirs_median / ours_median:7.2f}")
    if mode != "all":
        keys = [path.relative_to(folder).as_posix() for path in paths]
        both = [
            float(ours[key] @ row)
            for key, row in zip(keys, theirs, strict=True)
            if row is not None and key in ours
        ]
        print(f"faces: ours {len(ours)}, one by one {sum(row is not None for row in theirs)}")
        print(
            f"cosine between the two: median {statistics.median(both):.3f}, least {min(both):.3f}"
        )


def given_files() -> tuple[Path, Path, Path] | None:
    """Folder, model and detector of the command line, or those at hand; None where one is not."""
    folder, model, detector = (
        map(Path, sys.argv[1:4]) if len(sys.argv) > 3 else (FOLDER, MODEL, DETECTOR)
    )
    if folder.is_dir() and model.is_file() and detector.is_file():
        return folder, model, detector
    print(f"skipped: {folder}, {model} or {detector} is not there; give FOLDER MODEL DETECTOR")
    return None


def main() -> None:
    if (given := given_files()) is None:
        return
    folder, model, detector = given
    with tempfile.TemporaryDirectory() as copied:
        for copy in range(COPIES):
            # Not a link to the folder: the same folder is never entered twice.
            shutil.copytree(folder, Path(copied) / str(copy))
        measure("250 x 250", Path(copied), model, detector, "largest")
    with tempfile.TemporaryDirectory() as large:
        make_large(folder, Path(large))
        for mode in ("largest", "all"):
            measure("12 megapixels", Path(large), model, detector, mode)


if __name__ == "__main__":
    main()
