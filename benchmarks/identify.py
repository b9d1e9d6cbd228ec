"""Identification figures of many probes in a large gallery, beside the whole matrix of scores.

    python benchmarks/identify.py [--gallery 50000] [--probes 10000] [--dim 512] [--skip-matrix]

Clustered unit vectors: people with five pictures each in the gallery; half of the probes show
strangers. Each way runs in a process of its own, which prints its peak of resident memory. Ours is
`classify` as a user runs it: gallery and probes read from disk, the ranks of all probes, figures
with intervals, and the file of answers. The other holds all scores at once, sorts them, and counts
rank 1, FPIR and FNIR.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

PICTURES = 5
SPREAD = 2.2
THRESHOLD = 0.2
FINGERPRINT = "d" * 64


def drawn(people: np.ndarray, centres: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    noise = chance.standard_normal((len(people), centres.shape[1]), dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = centres[people] + SPREAD * noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write(path: Path, vectors: np.ndarray, people: np.ndarray) -> None:
    from faceidx.embedding.store import Origin, write_embeddings

    write_embeddings(
        path,
        origin=Origin(model="drawn", fingerprint=FINGERPRINT),
        vectors=vectors,
        norms=np.ones(len(vectors), dtype=np.float32),
        paths=[f"{person}/{row}.jpg" for row, person in enumerate(people)],
        identities=[str(person) for person in people],
    )


def make(folder: Path, gallery: int, probes: int, dim: int) -> None:
    from faceidx.gallery.build import BuildOptions, build
    from faceidx.gallery.indexes import IndexOptions

    chance = np.random.default_rng(0)
    enrolled = gallery // PICTURES
    centres = chance.standard_normal((2 * enrolled, dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    people = np.repeat(np.arange(enrolled), PICTURES)
    write(folder / "gallery.h5", drawn(people, centres, chance), people)
    who = chance.integers(0, 2 * enrolled, probes)
    write(folder / "probes.h5", drawn(who, centres, chance), who)
    build(
        BuildOptions(
            files=[folder / "gallery.h5"], out=folder / "gallery", index=IndexOptions(kind="flat")
        )
    )


def ours(folder: Path) -> dict[str, float]:
    from faceidx.gallery.lookup import LookupOptions, look_up

    told, _ = look_up(
        LookupOptions(
            probes=folder / "probes.h5",
            gallery=folder / "gallery",
            threshold=THRESHOLD,
            out=folder / "answers.csv",
            overwrite=True,
        )
    )
    return {name: told[name]["value"] for name in ("rank1", "fpir", "fnir")}


def matrix(folder: Path) -> dict[str, float]:
    with h5py.File(folder / "gallery.h5") as file:
        vectors, people = file["embeddings"][()], file["identities"].asstr()[()]
    with h5py.File(folder / "probes.h5") as file:
        probes, who = file["embeddings"][()], file["identities"].asstr()[()]
    scores = probes @ vectors.T
    best = scores.argmax(axis=1)
    accepted = scores[np.arange(len(probes)), best] >= THRESHOLD
    right = people[best] == who
    mated = np.isin(who, np.unique(people))
    return {
        "rank1": float(right[mated].mean()),
        "fpir": float(accepted[~mated].mean()),
        "fnir": float(1 - (right & accepted)[mated].mean()),
    }


def run(way: str, folder: Path) -> dict[str, float]:
    """One way in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--run", way, str(folder)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    told = json.loads(done.stdout)
    print(
        f"{way:8} {told['seconds']:7.2f} s  peak memory {told['peak'] / 2**20:8,.0f} MiB  "
        + "  ".join(f"{name} {told[name]:.4%}" for name in ("rank1", "fpir", "fnir"))
    )
    return dict(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gallery", type=int, default=50_000)
    parser.add_argument("--probes", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--skip-matrix", action="store_true")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        way, folder = options.run
        started = time.perf_counter()
        told = {"ours": ours, "matrix": matrix}[way](Path(folder))
        told["seconds"] = time.perf_counter() - started
        told["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(told))
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), options.gallery, options.probes, options.dim)
        vectors = options.gallery * options.dim * 4
        print(
            f"gallery {options.gallery:,} x {options.dim} ({vectors / 2**20:,.0f} MiB), "
            f"{options.probes:,} probes; all scores would be "
            f"{options.gallery * options.probes * 4 / 2**20:,.0f} MiB"
        )
        found = run("ours", Path(name))
        if not options.skip_matrix:
            other = run("matrix", Path(name))
            same = all(abs(found[n] - other[n]) < 1e-9 for n in ("rank1", "fpir", "fnir"))
            print("figures agree" if same else "figures differ")


if __name__ == "__main__":
    main()
