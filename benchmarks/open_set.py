"""The FPIR asked for and the FPIR got: half of the people enrolled, the other half left out.

    python benchmarks/open_set.py FILE.h5... [--sizes 50,150,500] [--draws 50] [--fusion best]
                                             [--pictures 5] [--seed 0]

For each size of the gallery, people are drawn: so many are enrolled with up to --pictures pictures
each, and half of all people are strangers who are never enrolled. The threshold is calibrated from
the gallery alone, as `index calibrate` does it; then every picture of the strangers and the other
pictures of the enrolled are looked up. The table gives the mean over the draws and the range of
the middle 90 %, how often the interval that the calibration gives holds the FPIR got, and FNIR.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np

from faceidx.embedding.store import EmbeddingFile, Origin, write_embeddings
from faceidx.gallery.build import BuildOptions, build
from faceidx.gallery.folder import Gallery, load_gallery
from faceidx.gallery.fusion import create_fusion
from faceidx.gallery.open_set import open_set_threshold

RATES = (0.01, 0.02, 0.05, 0.1)


def read(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    vectors, people = [], []
    for path in paths:
        with EmbeddingFile(path) as file:
            vectors.append(file.vectors())
            people += [f"{path.stem}/{identity}" for identity in file.identities()]
    return np.concatenate(vectors), np.unique(people, return_inverse=True)[1]


def enrol(folder: Path, vectors: np.ndarray, people: np.ndarray, rows: np.ndarray) -> Gallery:
    write_embeddings(
        folder / "g.h5",
        origin=Origin(model="given", fingerprint="0" * 64),
        vectors=vectors[rows],
        norms=np.ones(len(rows), dtype=np.float32),
        paths=[str(row) for row in rows],
        identities=[str(person) for person in people[rows]],
    )
    build(BuildOptions(files=[folder / "g.h5"], out=folder / "gallery", overwrite=True))
    return load_gallery(folder / "gallery")


def one_draw(
    vectors: np.ndarray, people: np.ndarray, size: int, options: argparse.Namespace, seed: int
) -> list[tuple[float, float, bool, float, bool]]:
    chance = np.random.default_rng(seed)
    order = chance.permutation(people.max() + 1)
    strangers, known = np.array_split(order, 2)
    known = known[:size]
    rows = {person: chance.permutation(np.flatnonzero(people == person)) for person in known}
    inside = np.concatenate([of_one[: options.pictures] for of_one in rows.values()])
    others = np.concatenate([of_one[options.pictures :] for of_one in rows.values()])
    with (
        tempfile.TemporaryDirectory() as name,
        enrol(Path(name), vectors, people, inside) as gallery,
    ):
        fusion = create_fusion(options.fusion, gallery)
        searched = fusion.as_strangers(np.arange(gallery.count))
        asked = [open_set_threshold(searched, gallery.codes, rate) for rate in RATES]
        unknown = fusion.nearest(vectors[np.isin(people, strangers)], 1)
        mated = fusion.nearest(vectors[others], 1) if len(others) else []
    best = np.array([found[0].score for found in unknown])
    own = np.array([found[0].score for found in mated])
    right = np.array(
        [found[0].identity == str(people[row]) for found, row in zip(mated, others, strict=True)],
        dtype=bool,
    )
    results = []
    for chosen in asked:
        got = float((best >= chosen.value).mean())
        fnir = float(1 - (right & (own >= chosen.value)).mean()) if len(own) else float("nan")
        held = chosen.interval.low <= got <= chosen.interval.high
        results.append((got, fnir, held, chosen.interval.high, chosen.method == "counted"))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--sizes", default="50,150,500")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--fusion", default="best")
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.files:
        print("skipped: give FILE.h5...")
        return
    logging.disable(logging.WARNING)
    vectors, people = read(options.files)
    print(f"{people.max() + 1} people, {len(vectors)} pictures; fusion {options.fusion}")
    print("| people enrolled | FPIR asked | FPIR got | middle 90 % | interval holds | FNIR |")
    print("|---|---|---|---|---|---|")
    for size in (int(text) for text in options.sizes.split(",")):
        draws = [
            one_draw(vectors, people, size, options, options.seed + draw)
            for draw in range(options.draws)
        ]
        for place, rate in enumerate(RATES):
            got, fnir, held, _, counted = (
                np.array([draw[place][column] for draw in draws]) for column in range(5)
            )
            low, high = np.quantile(got, [0.05, 0.95])
            mark = "" if counted.all() else " *"
            print(
                f"| {size} | {rate:g}{mark} | {got.mean():.4f} | {low:.4f} to {high:.4f} | "
                f"{held.mean():.0%} | {np.nanmean(fnir):.1%} |"
            )


if __name__ == "__main__":
    main()
