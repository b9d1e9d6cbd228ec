"""Bare rates of every engine and precision beside onnxruntime in float32, in turn in one run.

    python benchmarks/engines.py [--compile] [MODEL.onnx ...]

For each model: images/s from uint8 pictures to embeddings, decoding left out, and the least cosine
to float32. The baselines are onnxruntime in batches of 32, and one picture at a time, which is how
insightface's `get_feat` runs it. Without models: an untrained iresnet50 whose batch norms have seen
the pictures, and the MobileFaceNet of foamliu.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from faceidx.errors import FaceidxError
from faceidx.images.preprocess import load
from faceidx.models.engines import Way, build
from faceidx.models.face_model import Compiled, FaceModel
from faceidx.models.fidelity import compare
from faceidx.models.open import ModelOptions, open_exact

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_BATCH, _ROUNDS = 32, 5
_WAYS = [
    Way(engine=engine, precision=precision)
    for engine in ("onnx", "torch", "openvino")
    for precision in ("fp32", "bf16", "int8")
]


def untrained(path: Path, pictures: np.ndarray) -> Path:
    """An iresnet50 whose batch norms know real pictures: without that all embeddings are alike."""
    import onnx
    import torch

    from faceidx.models.export import onnx_graph
    from faceidx.models.registry import create_backbone

    torch.manual_seed(0)
    network = create_backbone("iresnet50", embedding_dim=512, image_size=(112, 112))
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain average
    batch = torch.from_numpy(pictures.transpose(0, 3, 1, 2) / 127.5 - 1).float()
    with torch.no_grad():
        network(batch)
    onnx.save(onnx_graph(network.eval(), (112, 112)), path)
    return path


def compare_engines(path: Path, preset: str, pictures: np.ndarray, *, compiled: bool) -> None:
    exact = open_exact(ModelOptions(path=path, preset=preset, device="cpu"))
    models: dict[str, FaceModel] = {}
    hows: list[Compiled] = ["onednn", True] if compiled else ["onednn"]
    compiling = [Way(engine="torch", precision="bf16", compiled=how) for how in hows]
    for way in [*_WAYS, *compiling]:
        began = time.perf_counter()
        try:
            models[str(way)] = build(exact, way, device="cpu", sample=pictures)
        except FaceidxError:
            continue
        print(f"{way}: opened in {time.perf_counter() - began:.1f} s")
    wanted = exact.raw_embed(pictures)
    runs = {name: [pictures[:_BATCH]] for name in models}
    models["onnx fp32 one by one"] = exact
    runs["onnx fp32 one by one"] = [pictures[i : i + 1] for i in range(_BATCH)]
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS + 1):
        for name, model in models.items():
            began = time.perf_counter()
            for batch in runs[name]:
                model.raw_embed(batch)
            seconds[name].append(time.perf_counter() - began)
    base = float(np.median(seconds["onnx fp32"][1:]))
    print(f"{path.name}: median of {_ROUNDS} batches of {_BATCH}")
    print("| way | images/s | x onnxruntime | least cosine | mean |\n|---|---|---|---|---|")
    for name, times in seconds.items():
        median = float(np.median(times[1:]))
        fidelity = compare(models[name].raw_embed(pictures), wanted)
        cosines = f"{fidelity.least:.5f} | {fidelity.mean:.5f}" if fidelity else "- | -"
        print(f"| {name} | {_BATCH / median:.1f} | {base / median:.2f} | {cosines} |")


def main() -> None:
    paths = [Path(word) for word in sys.argv[1:] if word != "--compile"]
    files = [*islice(sorted((_DATA / "lfw-dev").glob("*/*.jpg")), 64)]
    if not files:
        print(f"skipped: {_DATA} is not there")
        return
    pictures = np.stack([load(file, (112, 112)) for file in files])
    compiled = "--compile" in sys.argv
    with tempfile.TemporaryDirectory() as temporary:
        models = [(path, "insightface") for path in paths] or [
            (untrained(Path(temporary) / "iresnet50.onnx", pictures), "insightface"),
            (_DATA / "weights" / "mobilefacenet_foamliu.onnx", "imagenet"),
        ]
        for path, preset in models:
            compare_engines(path, preset, pictures, compiled=compiled)


if __name__ == "__main__":
    main()
