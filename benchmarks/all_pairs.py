"""All pairs of an embeddings file, beside blocks of products and histograms, in one run.

    python benchmarks/all_pairs.py [--pictures 20000] [--runs 3]

512-dimensional vectors of people with ten pictures each. Ours counts every score in steps of
1.2e-7 and computes the figures and the interval of the AUC. The other is what scripts do: blocks of
float32 products, sorted into 10,000 bins for each class; its figures are as coarse as the bins.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from faceidx.embedding.store import Origin, write_embeddings
from faceidx.evaluation.all_pairs import judge_all_pairs
from faceidx.evaluation.verdict import VerifyOptions

DIM, PICTURES_OF_ONE = 512, 10
SPREAD = 1.6  # of a person's pictures around their mean: overlapping classes
BINS, BLOCK = 10_000, 2048


def write_vectors(path: Path, pictures: int) -> None:
    rng = np.random.default_rng(0)
    people = np.arange(pictures) // PICTURES_OF_ONE
    vectors = rng.standard_normal((people[-1] + 1, DIM), dtype=np.float32)[people]
    for first in range(0, pictures, BLOCK):
        part = vectors[first : first + BLOCK]
        part += SPREAD * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    write_embeddings(
        path,
        origin=Origin(model="drawn", fingerprint=""),
        vectors=vectors,
        norms=np.ones(pictures, dtype=np.float32),
        paths=[f"{person}/{i}.jpg" for i, person in enumerate(people)],
        identities=[str(person) for person in people],
    )


def ours(path: Path) -> float:
    return judge_all_pairs(VerifyOptions(pairs=path, embeddings=path, all_pairs=True)).figures.auc


def histograms(path: Path) -> float:
    with h5py.File(path) as file:
        vectors = file["embeddings"][()]
        _, people = np.unique(file["identities"].asstr()[()], return_inverse=True)
    counts = np.zeros((2, BINS), dtype=np.int64)
    for first in range(0, len(vectors), BLOCK):
        for second in range(first, len(vectors), BLOCK):
            rows, columns = slice(first, first + BLOCK), slice(second, second + BLOCK)
            scores = vectors[rows] @ vectors[columns].T
            same = people[rows, None] == people[columns]
            later = np.ones_like(same) if second > first else np.triu(np.ones_like(same), 1)
            for of_class, wanted in enumerate((~same & later, same & later)):
                counts[of_class] += np.histogram(scores[wanted], BINS, range=(-1.01, 1.01))[0]
    impostor, genuine = counts.astype(np.float64)
    below = np.cumsum(impostor) - impostor / 2
    return float(genuine @ below / (genuine.sum() * impostor.sum()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    pairs = given.pictures * (given.pictures - 1) // 2
    runs: dict[str, Callable[[Path], float]] = {"ours": ours, "histograms": histograms}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    areas, peaks = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.h5"
        write_vectors(path, given.pictures)
        tracemalloc.start()
        for _ in range(given.runs):
            for name, run in runs.items():
                tracemalloc.reset_peak()
                began = time.perf_counter()
                areas[name] = run(path)
                seconds[name].append(time.perf_counter() - began)
                peaks[name] = tracemalloc.get_traced_memory()[1]
    print(f"{given.pictures:,} x {DIM}: {pairs:,} pairs, median of {given.runs}")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{name:<11} {median:7.1f} s  {pairs / median / 1e6:6.1f} million pairs/s  "
            f"AUC {areas[name]:.9f}  peak {peaks[name] / 2**20:.0f} MiB"
        )
    ratio = statistics.median(seconds["histograms"]) / statistics.median(seconds["ours"])
    print(f"ratio       {ratio:7.1f}")


if __name__ == "__main__":
    main()
