"""Photos that lie on their side or head, or are tilted anyhow: what `embed --detect` makes of them.

    python benchmarks/turned.py [FOLDER MODEL.onnx DETECTOR.onnx]

Each photo is turned by its own draw, tilted ones zoomed too, and embedded with its largest face.
Of all pairs the AUC, and the mean cosine of genuine pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from detect import PRESET, given_files
from sklearn.metrics import roc_auc_score

from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import EmbeddingFile
from faceidx.images.detect import open_detector
from faceidx.models.open import ModelOptions

Turn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def by_quarters(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(photo, int(rng.integers(4))))


def tilted(most: float) -> Turn:
    def turn(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = photo.shape[:2]
        angle, zoom = rng.uniform(-most, most), rng.uniform(0.7, 1.4)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)
        return np.asarray(cv2.warpAffine(photo, matrix, (width, height)))

    return turn


KINDS: dict[str, Turn] = {
    "as they are": lambda photo, _: photo,
    "by quarters": by_quarters,
    "up to 30 degrees": tilted(30),
    "any angle": tilted(180),
}


def measure(name: str, turn: Turn, folder: Path, model: Path, detector: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as temporary:
        photos, out = Path(temporary, "photos"), Path(temporary, "out.h5")
        for path in sorted(folder.rglob("*.jpg")):
            photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
            assert photo is not None
            copy = (photos / path.relative_to(folder)).with_suffix(".png")
            copy.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(copy), turn(photo, rng))
        embed(
            EmbedOptions(
                images=photos,
                out=out,
                model=ModelOptions(path=model, preset=PRESET, engine="onnx", precision="fp32"),
                pipeline=PipelineOptions(detect="largest", detector=open_detector(detector)),
            )
        )
        with EmbeddingFile(out) as file:
            vectors, people = file.vectors(), np.array(file.identities())
    above = np.triu_indices(len(vectors), 1)
    scores, genuine = (vectors @ vectors.T)[above], (people[:, None] == people)[above]
    print(
        f"{name:<17} seed {seed}: faces in {len(vectors)} photos, AUC "
        f"{roc_auc_score(genuine, scores):.4f}, genuine {scores[genuine].mean():.3f}",
        flush=True,
    )


def main() -> None:
    if (given := given_files()) is None:
        return
    for name, turn in KINDS.items():
        for seed in (1, 2):
            measure(name, turn, *given, seed)


if __name__ == "__main__":
    main()
