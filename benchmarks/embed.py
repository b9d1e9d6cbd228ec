"""`embed` from a folder of JPEGs to the file, in turn in one run with what people run today.

    python benchmarks/embed.py [--runs 3] [--folder FOLDER]

For an IResNet-50 (untrained, its batch norms fitted to the pictures) and a trained MobileFaceNet,
both as ONNX files of 112 pixels:

- one by one: what insightface's `get_feat` does for each picture: decode, normalise, onnxruntime in
  float32 on a batch of one;
- onnxruntime: float32 in batches of 32, on pictures in memory;
- bare: the engine that `--engine auto` chooses, on pictures in memory;
- ours: the whole command with that engine, from the folder to the finished file. Opening the
  model (with compiling, where that is chosen) is told apart and not counted, as it does not grow
  with the pictures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.store import EmbeddingFile
from faceidx.images.decode import decode
from faceidx.images.preprocess import PRESETS, Preprocessing, Triple
from faceidx.models.choose import choose_model
from faceidx.models.engines import natural
from faceidx.models.export import ExportOptions, export
from faceidx.models.face_model import normalize
from faceidx.models.file import ModelFile, write_model
from faceidx.models.open import ModelOptions
from faceidx.models.record import ModelRecord
from faceidx.models.registry import create_backbone
from faceidx.models.torch_model import normalize_pictures
from faceidx.resources import usable_cores

if TYPE_CHECKING:
    import onnxruntime

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
BATCH = 32
# Pictures that each way embeds in a run: some ten seconds of the slowest.
PICTURES = {"iresnet50": 512, "mobilefacenet": 5120}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=DATA / "lfw-train")
    parser.add_argument("--models", default=",".join(PICTURES))
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        print(f"skipped: {arguments.folder} is not there; give --folder")
        return
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            compare(name, arguments.folder, Path(temporary), arguments.runs)


def compare(name: str, folder: Path, temporary: Path, runs: int) -> None:
    import onnxruntime  # once faceidx has kept it from telling of its use

    paths = sorted(folder.rglob("*.jpg"))[: PICTURES[name]]
    listed = temporary / "pictures.txt"
    listed.write_text("".join(f"{path.relative_to(folder)}\n" for path in paths))
    pictures = np.stack([decode(path) for path in paths])
    options = model_options(name, pictures, temporary)
    preset = PRESETS[options.preset or "insightface"]
    session = onnxruntime.InferenceSession(str(options.path), providers=["CPUExecutionProvider"])
    model = choose_model(options, pictures[:64], images=len(paths) * 100, batch_size=BATCH)
    settled = replace(
        options, engine=model.engine, precision=model.precision, compiled=model.compiled
    )
    result = {}
    out = temporary / "out.h5"

    def ours() -> float:
        result.update(
            embed(EmbedOptions(images=listed, root=folder, out=out, model=settled, overwrite=True))
        )
        return float(result["seconds"] - result["waited"]["open"])

    ways: dict[str, Callable[[], float]] = {
        "one by one": lambda: one_by_one(session, paths, preset.mean, preset.std),
        "onnxruntime": lambda: batches(
            lambda part: run(session, part, preset.mean, preset.std), pictures
        ),
        "bare": lambda: batches(model.embed, pictures),
        "ours": ours,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, measure in ways.items():
            seconds[way].append(measure())
    rates = {way: len(paths) / statistics.median(times) for way, times in seconds.items()}
    exact = normalize(run(session, pictures[:256], preset.mean, preset.std))[0]
    with EmbeddingFile(out) as file:
        keys = file.paths()
        rows = [keys.index(str(path.relative_to(folder))) for path in paths[:256]]
        found = file.vectors()[rows]
    print(f"{name}, {len(paths)} pictures, median of {runs}: {natural(model)}")
    for way, rate in rates.items():
        print(f"  {way:<12} {rate:7.1f} images/s")
    print(f"  bare / onnxruntime   {rates['bare'] / rates['onnxruntime']:.2f}")
    print(f"  ours / bare          {rates['ours'] / rates['bare']:.2f}")
    print(f"  ours / one by one    {rates['ours'] / rates['one by one']:.2f}")
    print(f"  opening the model    {result['waited']['open']:.1f} s")
    print(f"  least cosine to onnxruntime's float32  {float((found * exact).sum(1).min()):.5f}")


def model_options(name: str, pictures: np.ndarray, temporary: Path) -> ModelOptions:
    if name == "mobilefacenet":
        path = DATA / "weights" / "mobilefacenet_foamliu.onnx"
        return ModelOptions(path=path, preset="imagenet", color="rgb")
    path = temporary / f"{name}.onnx"
    export(ExportOptions(model=ModelOptions(path=untrained(name, pictures, temporary)), out=path))
    return ModelOptions(path=path)


def untrained(name: str, pictures: np.ndarray, temporary: Path) -> Path:
    """Write a model file of a network that nobody trained."""
    torch.manual_seed(0)
    backbone = create_backbone(name, embedding_dim=512, image_size=(112, 112))
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(image_size=(112, 112), color="rgb", mean=half, std=half)
    with torch.no_grad():  # untrained, but each layer in the range that training keeps it in
        for first in range(0, 128, BATCH):
            part = torch.from_numpy(pictures[first : first + BATCH])
            backbone.train()(normalize_pictures(part, preprocessing))
    record = ModelRecord(arch=name, embedding_dim=512, preprocessing=preprocessing)
    path = temporary / f"{name}.safetensors"
    write_model(path, ModelFile(record=record, backbone=backbone.state_dict(), head={}))
    return path


def link_pictures(folder: Path, paths: Sequence[Path], count: int) -> None:
    """Fill a folder with hard links to some pictures, a thousand in each of its folders."""
    originals = folder.with_name(f"{folder.name} that are linked")  # on the same disk
    originals.mkdir()
    names = [f"{originals}/{number}.jpg" for number in range(len(paths))]
    for path, name in zip(paths, names, strict=True):
        shutil.copyfile(path, name)

    def link(first: int) -> None:
        home = folder / f"{first // 1000:04d}"
        home.mkdir(parents=True)
        for number in range(first, min(first + 1000, count)):
            os.link(names[number % len(names)], f"{home}/{number:08d}.jpg")

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(link, range(0, count, 1000)))


def run(
    session: onnxruntime.InferenceSession, part: np.ndarray, mean: Triple, std: Triple
) -> np.ndarray:
    scaled = (part.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(
        std, np.float32
    )
    name = session.get_inputs()[0].name
    fixed = session.get_inputs()[0].shape[0] == 1
    parts = [scaled[i : i + 1] for i in range(len(scaled))] if fixed else [scaled]
    rows = [
        session.run(None, {name: np.ascontiguousarray(p.transpose(0, 3, 1, 2))})[0] for p in parts
    ]
    return np.concatenate(rows)


def one_by_one(
    session: onnxruntime.InferenceSession, paths: list[Path], mean: Triple, std: Triple
) -> float:
    began = time.perf_counter()
    for path in paths:
        row = run(session, decode(path)[None], mean, std)[0]
        row /= np.linalg.norm(row)
    return time.perf_counter() - began


def batches(embed_batch: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray) -> float:
    began = time.perf_counter()
    for first in range(0, len(pictures), BATCH):
        embed_batch(pictures[first : first + BATCH])
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
