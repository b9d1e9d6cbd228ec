"""`embed` from a folder to the file, beside a loop of one picture at a time, in turn in one run.

    python benchmarks/embed.py [FOLDER MODEL.onnx]

The loop does what insightface's `get_feat` does for each picture: decode, normalise, run
onnxruntime on a batch of one. Ours is the whole command, file included.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.store import EmbeddingFile
from faceidx.images.preprocess import PRESETS
from faceidx.models.open import ModelOptions

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDER, MODEL = _DATA / "lfw-dev", _DATA / "weights" / "mobilefacenet_foamliu.onnx"
PRESET = "imagenet"
RUNS = 5


def one_by_one(paths: list[Path], model: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    mean = np.asarray(PRESETS[PRESET].mean, np.float32) * 255
    std = np.asarray(PRESETS[PRESET].std, np.float32) * 255
    rows = []
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)
        batch = ((pixels - mean) / std).transpose(2, 0, 1)[None]
        row = session.run(None, {name: np.ascontiguousarray(batch)})[0][0]
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def main() -> None:
    folder, model = map(Path, sys.argv[1:3]) if len(sys.argv) > 2 else (FOLDER, MODEL)
    if not (folder.is_dir() and model.is_file()):
        print(f"skipped: {folder} or {model} is not there; give FOLDER MODEL.onnx")
        return
    seconds: dict[str, list[float]] = {"ours": [], "one by one": []}
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out.h5"
        options = EmbedOptions(
            images=folder, out=out, model=ModelOptions(path=model, preset=PRESET), overwrite=True
        )
        for _ in range(RUNS):
            began = time.perf_counter()
            embed(options)
            seconds["ours"].append(time.perf_counter() - began)
            with EmbeddingFile(out) as file:
                vectors, keys = file.vectors(), file.paths()
            began = time.perf_counter()
            expected = one_by_one([folder / key for key in keys], model)
            seconds["one by one"].append(time.perf_counter() - began)
    print(f"{len(keys)} pictures, {model.name}, median of {RUNS}")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<11} {median:6.2f} s  {len(keys) / median:6.0f} images/s")
    ratio = statistics.median(seconds["one by one"]) / statistics.median(seconds["ours"])
    print(f"ratio       {ratio:6.2f}")
    print(f"least cosine between the two: {float((vectors * expected).sum(1).min()):.6f}")


if __name__ == "__main__":
    main()
