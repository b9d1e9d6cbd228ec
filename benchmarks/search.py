"""Who is this? Exact and approximate search beside FAISS, hnswlib and usearch, in turn in one run.

    python benchmarks/search.py [--sizes 200000,1000000] [--peers-up-to 200000] [--real FILE.h5]...

Drawn vectors: people with ten pictures each, 512 numbers, directions of people independent (the
hardest case for lists and graphs), cosines within a person as a real model gives them (mean 0.65).
With --real, embeddings of real faces, as they are, and extended to each size by mixtures: the
pictures of a person moved together towards another person, and varied by the difference of two
pictures of a third.

Galleries are built by the command itself, in a process of its own, whose peak memory is printed
beside the vectors' own size. The 1,000 probes are pictures that are not in the gallery, of people
who are. Recall of people is relative to exact search: of the probes that it names rightly, the
share that a system does. Each system is asked for the ten nearest.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np

from faceidx.embedding.store import Origin, write_embeddings
from faceidx.gallery.folder import Gallery, load_gallery
from faceidx.gallery.hits import SearchOptions, search_file
from faceidx.gallery.search import search

DIM, PICTURES, QUERIES, K = 512, 10, 1000, 10
TARGET = 0.99
BLOCK = 65536
FINGERPRINT = "d" * 64
KINDS = {
    "flat": ("--kind", "flat"),
    "ivf": ("--kind", "ivf"),
    "ivf of people": ("--kind", "ivf", "--recall-of", "identities"),
    "hnsw of people": ("--kind", "hnsw", "--recall-of", "identities"),
    "auto of people": ("--kind", "auto", "--recall-of", "identities"),
    "ivf of people on disk": ("--kind", "ivf", "--recall-of", "identities", "--memory", "1M"),
}
Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass
class Faces:
    """A file of gallery faces, and probes of the same people."""

    file: Path
    people: np.ndarray
    probes: np.ndarray
    probe_people: np.ndarray
    name: str

    def vectors(self) -> np.ndarray:
        with h5py.File(self.file) as file:
            return np.asarray(file["embeddings"][()])


@dataclass
class System:
    name: str
    find: Search
    build_seconds: float | None = None
    megabytes: float | None = None
    rates: dict[int, list[float]] = field(default_factory=lambda: {1: [], QUERIES: []})
    rows: np.ndarray | None = None
    scores: np.ndarray | None = None


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pictures_of(centres: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A picture for each row of centres: cosines of 0.65 within a person, with a spread of 0.1."""
    noise = unit(chance.standard_normal(centres.shape, dtype=np.float32))
    lengths = chance.uniform(0.45, 1.0, (len(centres), 1)).astype(np.float32)
    return unit(centres + lengths * noise)


def drawn(folder: Path, size: int) -> Faces:
    chance = np.random.default_rng(0)
    people = size // PICTURES
    centres = unit(chance.standard_normal((people, DIM), dtype=np.float32))
    who = np.repeat(np.arange(people), PICTURES)
    vectors = np.empty((size, DIM), dtype=np.float32)
    for first in range(0, size, BLOCK):
        block = slice(first, first + BLOCK)
        vectors[block] = pictures_of(centres[who[block]], chance)
    file = write_faces(folder / "faces.h5", vectors, who)
    asked = chance.choice(people, QUERIES)
    return Faces(file, who, pictures_of(centres[asked], chance), asked, f"drawn {size:,} x {DIM}")


def real(folder: Path, files: list[Path], size: int | None) -> Faces:
    """Real faces, 1,000 pictures of people with others held out, and mixtures up to a size."""
    vectors, names = [], []
    for path in files:
        with h5py.File(path) as file:
            vectors.append(file["embeddings"][()].astype(np.float32))
            names.append(file["identities"].asstr()[()])
    every = np.concatenate(vectors)
    _, who, counts = np.unique(np.concatenate(names), return_inverse=True, return_counts=True)
    chance = np.random.default_rng(0)
    order = chance.permutation(len(every))
    seen = np.zeros(len(counts), dtype=int)
    held: list[int] = []
    for row in order:  # at least one picture of each person stays
        if len(held) < QUERIES and seen[who[row]] + 1 < counts[who[row]]:
            seen[who[row]] += 1
            held.append(int(row))
    kept = np.setdiff1d(np.arange(len(every)), held)
    parts, people = [every[kept]], [who[kept]]
    pairs = [(a, b) for a, b in itertools.pairwise(kept) if who[a] == who[b]]
    for copy in range(1, 1 if size is None else -(-size // len(kept))):
        towards = every[chance.integers(len(every), size=len(counts))][who[kept]]
        one, other = np.array(pairs)[chance.integers(len(pairs), size=len(kept))].T
        parts.append(unit(every[kept] + towards + every[one] - every[other]))
        people.append(who[kept] + copy * len(counts))
    rows, of_rows = np.concatenate(parts)[:size], np.concatenate(people)[:size]
    file = write_faces(folder / "faces.h5", rows, of_rows)
    kind = "real" if size is None else "real and mixtures,"
    return Faces(file, of_rows, every[held], who[held], f"{kind} {len(rows):,} x {rows.shape[1]}")


def write_faces(path: Path, vectors: np.ndarray, who: np.ndarray, prefix: str = "") -> Path:
    write_embeddings(
        path,
        origin=Origin(model="drawn", fingerprint=FINGERPRINT),
        vectors=vectors,
        norms=np.ones(len(vectors), dtype=np.float32),
        paths=[f"{prefix}p{person}/{row}.jpg" for row, person in enumerate(who)],
        identities=[f"p{person}" for person in who],
    )
    return path


# What `wait4` says would include the parent's memory, which a child has until it starts.
COMMAND = """
import re, sys
from pathlib import Path
from faceidx.cli import main
main(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def build(faces: Faces, out: Path, *options: str) -> tuple[float, float]:
    """Build a gallery by the command; return seconds and peak MiB."""
    words = ["index", "build", str(faces.file), "--out", str(out), *options]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    return seconds, int(done.stderr.split()[-1]) / 1024


def peers(
    vectors: np.ndarray,
    recall: Callable[[np.ndarray], float],
    probes: np.ndarray,
    graphs: Path | None,
) -> Any:
    """hnswlib and usearch, tuned to the same recall of people.

    Args:
        graphs: folder to keep graphs in from run to run, as those of a million take an hour.
    """
    threads = faiss.omp_get_max_threads()
    if importlib.util.find_spec("hnswlib"):
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=vectors.shape[1])

        def grow() -> None:
            graph.init_index(len(vectors), M=16, ef_construction=100, random_seed=0)
            graph.set_num_threads(threads)
            graph.add_items(vectors)

        kept = graphs and graphs / f"hnswlib-{len(vectors)}x{vectors.shape[1]}"
        seconds = built(kept, grow, graph.save_index, graph.load_index, threads)
        graph.set_num_threads(threads)

        def find(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            rows, distances = graph.knn_query(queries, k)
            return 1 - distances, rows.astype(np.int64)

        ef = tuned(graph.set_ef, lambda: recall(find(probes, K)[1]))
        yield System(f"hnswlib ef {ef}", find, seconds, graph.index_file_size() / 2**20)
    else:
        print("hnswlib is not installed: skipped")
    if importlib.util.find_spec("usearch"):
        from usearch.index import Index

        other = Index(
            ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=16, expansion_add=100
        )

        def grow_other() -> None:
            other.add(np.arange(len(vectors)), vectors, threads=threads)

        kept = graphs and graphs / f"usearch-{len(vectors)}x{vectors.shape[1]}"
        seconds = built(kept, grow_other, other.save, other.load, threads)

        def find_in_other(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            found = other.search(queries, k, threads=threads)
            shape = (len(queries), k)
            return 1 - found.distances.reshape(shape), found.keys.astype(np.int64).reshape(shape)

        def set_ef(ef: int) -> None:
            setattr(other, "expansion_search", ef)  # noqa: B010  (its stub says read-only)

        ef = tuned(set_ef, lambda: recall(find_in_other(probes, K)[1]))
        size = other.serialized_length / 2**20
        yield System(f"usearch bf16 ef {ef}", find_in_other, seconds, size)
    else:
        print("usearch is not installed: skipped")


def built(
    kept: Path | None,
    grow: Callable[[], None],
    save: Callable[[str], Any],
    load: Callable[[str], Any],
    threads: int,
) -> float:
    """Build a graph, or take the one that was kept; return its seconds.

    They are processor time by threads, which other work on the machine does not add to: while a
    graph is built all threads are busy.
    """
    seconds = kept and kept.with_suffix(".seconds")
    if kept and seconds and seconds.exists():
        load(str(kept))
        return float(seconds.read_text())
    began = time.process_time()
    grow()
    took = (time.process_time() - began) / threads
    if kept and seconds:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save(str(kept))
        seconds.write_text(str(took))
    return took


def tuned(set_ef: Callable[[int], None], recall: Callable[[], float]) -> int:
    for ef in (16, 32, 64, 128, 256, 512, 1024, 2048):
        set_ef(ef)
        if recall() >= TARGET:
            break
    return ef


def rate(find: Search, probes: np.ndarray, batch: int, clock: Callable[[], float]) -> float:
    """Queries a second; single ones until a second has passed."""
    began, asked = clock(), 0
    while not asked or (batch == 1 and clock() - began < 1):
        find(probes[asked % QUERIES][None] if batch == 1 else probes, K)
        asked += batch
    return asked / (clock() - began)


def ours(gallery: Gallery) -> Search:
    return lambda queries, k: search(gallery, queries, k)


def overhead(faces: Faces, folder: Path, out: Path, raw: Search) -> str:
    """What the command `index search` takes beyond loading, beside a bare search by FAISS."""
    probes = write_faces(folder / "probes.h5", faces.probes, faces.probe_people, "probe/")

    def loaded() -> float:
        began = time.perf_counter()
        with load_gallery(out) as gallery:
            assert len(gallery.paths) == len(gallery.identities)
            search(gallery, faces.probes[:1], K)
        return time.perf_counter() - began

    def command() -> float:
        began = time.perf_counter()
        search_file(SearchOptions(gallery=out, file=probes, top_k=K, out=folder / "h.csv"))
        took = time.perf_counter() - began
        (folder / "h.csv").unlink()
        return took

    loading = min(loaded() for _ in range(3))
    whole = min(command() for _ in range(3))
    bare = min(QUERIES / rate(raw, faces.probes, QUERIES, time.perf_counter) for _ in range(3))
    return (
        f"index search, loading aside: {1e3 * (whole - loading):.0f} ms for {QUERIES:,} probes; "
        f"FAISS alone {1e3 * bare:.0f} ms"
    )


def measure(
    faces: Faces,
    folder: Path,
    kinds: list[str],
    runs: int,
    with_peers: bool,
    clock: Callable[[], float],
    graphs: Path | None,
) -> None:
    vectors = faces.vectors()
    own = vectors.nbytes / 2**20
    print(f"\n## {faces.name}: {own:,.0f} MiB of vectors, {QUERIES:,} probes")
    exact_index = faiss.IndexFlatIP(vectors.shape[1])
    began = time.perf_counter()
    exact_index.add(vectors)
    systems = [System("FAISS IndexFlatIP", exact_index.search, time.perf_counter() - began, own)]
    reference = exact_index.search(faces.probes, K)

    named = faces.people[reference[1][:, 0]] == faces.probe_people
    print(f"exact search names {named.sum():,} of them rightly")

    def recall(rows: np.ndarray) -> float:
        return float((faces.people[rows[:, 0]] == faces.probe_people)[named].mean())

    galleries = []
    for name in kinds:
        options = KINDS[name]
        out = folder / name.replace(" ", "-")
        seconds, peak = build(faces, out, *options)
        gallery = load_gallery(out)
        size = (out / "index.faiss").stat().st_size + sum(
            p.stat().st_size for p in out.glob("*.ivfdata")
        )
        print(
            f"faceidx {name}: built in {seconds:.1f} s, peak memory {peak:,.0f} MiB "
            f"({peak / own:.2f} x the vectors), {gallery.manifest.tuning}"
        )
        galleries.append((gallery, out))
        systems.append(System(f"faceidx {name}", ours(gallery), seconds, size / 2**20))
    if with_peers:
        systems += peers(vectors, recall, faces.probes, graphs)
    del vectors
    for system in systems:
        system.scores, system.rows = system.find(faces.probes, K)
    for _ in range(runs):
        for system in systems:
            for batch in system.rates:
                system.rates[batch].append(rate(system.find, faces.probes, batch, clock))
    base = {batch: float(np.median(r)) for batch, r in systems[0].rates.items()}
    print("| system | q/s, 1,000 | x | q/s, 1 | x | people@1 | same ids | build s | index MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for system in systems:
        many, one = (float(np.median(system.rates[b])) for b in (QUERIES, 1))
        assert system.rows is not None and system.scores is not None
        tied = np.abs(system.scores - reference[0]) <= 1e-6
        same = ((system.rows == reference[1]) | tied).mean()
        print(
            f"| {system.name} | {many:,.0f} | {many / base[QUERIES]:.1f} | {one:,.0f} | "
            f"{one / base[1]:.1f} | {recall(system.rows):.4f} | {same:.4%} | "
            f"{system.build_seconds:.1f} | {system.megabytes:,.0f} |"
        )
    if kinds[0] == "flat":
        print(f"flat: {overhead(faces, folder, galleries[0][1], exact_index.search)}")
    for gallery, _ in galleries:
        gallery.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="200000,1000000")
    parser.add_argument("--peers-up-to", type=int, default=200_000)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--cpu-time", action="store_true", help="for a machine that others use; give one thread"
    )
    parser.add_argument("--real", type=Path, action="append", default=[])
    parser.add_argument("--no-drawn", action="store_true")
    parser.add_argument(
        "--graphs", type=Path, help="keep the graphs over drawn vectors here from run to run"
    )
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    clock = time.process_time if given.cpu_time else time.perf_counter
    sizes = [int(size) for size in given.sizes.split(",") if size]
    print(f"{faiss.omp_get_max_threads()} threads, FAISS {faiss.__version__}, top {K}")
    for size in sizes if not given.no_drawn else []:
        with tempfile.TemporaryDirectory() as folder:
            faces = drawn(Path(folder), size)
            beside = size <= given.peers_up_to
            measure(faces, Path(folder), kinds, given.runs, beside, clock, given.graphs)
    if not given.real:
        print("no real faces: give --real FILE.h5")
        return
    for real_size in (None, *sizes):
        with tempfile.TemporaryDirectory() as folder:
            faces = real(Path(folder), given.real, real_size)
            beside = (real_size or 0) <= given.peers_up_to
            measure(faces, Path(folder), kinds, given.runs, beside, clock, None)


if __name__ == "__main__":
    main()
