"""What each part of a trained `hybrid` is worth: the pair AUC by it alone, and without it.

    python benchmarks/hybrid_parts.py run/model.safetensors PAIRS IMAGES

PAIRS is a list of pairs, IMAGES the folder that its pictures lie in.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from faceidx.evaluation.lists import read_list
from faceidx.evaluation.lists.finding import find_way, resolve
from faceidx.evaluation.lists.pairs import PairList
from faceidx.evaluation.roc import auc, roc_curve
from faceidx.images.preprocess import load
from faceidx.images.sources import open_source
from faceidx.models.open import ModelOptions, open_model

_PARTS = ("whole face", "inner face", "closed form")
_BATCH = 64


def main(model_path: Path, pairs_path: Path, root: Path) -> None:
    model = open_model(ModelOptions(path=model_path))
    pictures = open_source(root).pictures
    listed = read_list(pairs_path)
    assert isinstance(listed, PairList), "give a list of pairs"
    keys = [p.key for p in pictures]
    places = resolve(listed, keys, find_way(listed, keys))
    left, right = places[listed.left], places[listed.right]
    faces = np.stack([load(p.data, model.preprocessing.image_size) for p in pictures])
    rows = np.concatenate(
        [model.raw_embed(faces[i : i + _BATCH]) for i in range(0, len(faces), _BATCH)]
    )
    parts = np.split(rows, len(_PARTS), axis=1)
    every = list(range(len(_PARTS)))
    choices = {"all": every}
    choices |= {f"{name} alone": [k] for k, name in enumerate(_PARTS)}
    choices |= {f"without {name}": [j for j in every if j != k] for k, name in enumerate(_PARTS)}
    for name, chosen in choices.items():
        units = np.concatenate([parts[k] for k in chosen], axis=1)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        scores = np.einsum("pd,pd->p", units[left], units[right])
        print(f"| {name} | {auc(roc_curve(scores, listed.genuine)):.4f} |")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(*map(Path, sys.argv[1:]))
    else:
        print("skipped: give a model, PAIRS and IMAGES")
