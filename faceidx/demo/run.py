"""`faceidx demo`: draw people, train on some, then recognise others that were never seen.

Every step is a call of what a command of the same name does; a step whose output is there already
is not done again, so the demo goes on where it was interrupted.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.demo.faces import write_people
from faceidx.demo.page import Sample, write_page
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.errors import InputError
from faceidx.evaluation.verdict import VerifyOptions
from faceidx.evaluation.verification import verify_pairs
from faceidx.files import FOLDER_MODE, is_temporary, require_parent, whole_file
from faceidx.gallery.build import BuildOptions, build
from faceidx.gallery.calibrate import CalibrateOptions, calibrate
from faceidx.gallery.hits import SearchOptions, search_file
from faceidx.gallery.lookup import LookupOptions, look_up
from faceidx.models.about import describe
from faceidx.models.file import read_record
from faceidx.models.open import ModelOptions
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import write_rows
from faceidx.training.loop import train
from faceidx.training.options import TrainOptions
from faceidx.training.run_folder import STATE
from faceidx.training.state import read_state

# How many people are drawn, and what they are for. Everybody has the same number of pictures.
_PICTURES = 16
_TRAINED, _ENROLLED, _STRANGERS = 240, 40, 20
_ENROLLED_PICTURES = 8
_PAIRS = 2000
_FPIR = 0.05
_PAGE, _BEGUN = "index.html", "demo.json"

_FILES = (
    ("training-people", "drawn people that the model was trained on"),
    ("unseen-people", "drawn people that it never saw"),
    ("run", "the training run: model, metrics, curves"),
    ("unseen.h5", "embeddings of all unseen people"),
    ("gallery.csv", "which pictures are enrolled"),
    ("gallery.h5", "their embeddings"),
    ("gallery", "the searchable gallery, with its calibrated threshold"),
    ("probes.csv", "which pictures are asked about; a third of the people is not enrolled"),
    ("probes.h5", "their embeddings"),
    ("who.csv", "the nearest people of each probe, with scores and decisions"),
    ("hits.csv", "the nearest enrolled picture of each probe"),
    ("pairs.csv", "pairs of unseen people, genuine and impostor"),
    ("verification/index.html", "the report on these pairs"),
)
_COMMANDS = (
    "faceidx train training-people --out run --recipe demo",
    "faceidx embed unseen-people --model run/model.safetensors --out unseen.h5",
    "faceidx embed gallery.csv --model run/model.safetensors --out gallery.h5",
    "faceidx embed probes.csv --model run/model.safetensors --out probes.h5",
    "faceidx index build gallery.h5 --out gallery",
    f"faceidx index calibrate gallery --fpir {_FPIR}",
    "faceidx classify probes.h5 --index gallery --out who.csv",
    "faceidx index search gallery probes.h5 --top-k 1 --out hits.csv",
    "faceidx verify-pairs pairs.csv --embeddings unseen.h5 --report verification "
    "--pictures unseen-people",
)


@dataclass(kw_only=True)
class DemoOptions:
    """Options of `faceidx demo`."""

    out: Path
    seed: int = 0
    device: str = "auto"


def demo(options: DemoOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Run the demo, or go on with an unfinished one.

    Returns:
        `out, page, drawn` (true: the faces are drawn), `people_trained, people_unseen, auc, auc_ci,
        eer, accuracy, tar_at_far, rank1, fpir, fnir, threshold, seconds`.

    Raises:
        InputError: the folder holds a finished demo, one of another seed, or something else.
    """
    out = options.out
    _prepare(options)
    clock = _Clock()
    unseen = out / "unseen-people"
    with clock.step("draw"):
        _draw(out / "training-people", _TRAINED, 0, options, progress)
        _draw(unseen, _ENROLLED + _STRANGERS, _TRAINED, options, progress)
    with clock.step("train"):
        _train(options, progress)
    model = ModelOptions(path=out / "run" / "model.safetensors", device=options.device)
    with clock.step("embed"):
        _write_lists(out, unseen, options.seed)
        for name in ("gallery", "probes"):
            if not (out / f"{name}.h5").exists():
                images = out / f"{name}.csv"
                embed(EmbedOptions(images=images, out=out / f"{name}.h5", model=model), progress)
        everyone = out / "unseen.h5"
        if not everyone.exists():
            embed(EmbedOptions(images=unseen, out=everyone, model=model), progress)
    with clock.step("index"):
        gallery = out / "gallery"
        if not gallery.exists():
            build(BuildOptions(files=[out / "gallery.h5"], out=gallery), progress=progress)
        calibrate(CalibrateOptions(gallery=gallery, fpir=_FPIR), progress=progress)
    with clock.step("classify"):
        found, _ = look_up(
            LookupOptions(
                probes=out / "probes.h5", gallery=gallery, out=out / "who.csv", overwrite=True
            ),
            progress,
        )
        hits = out / "hits.csv"
        search_file(
            SearchOptions(
                gallery=gallery, file=out / "probes.h5", top_k=1, out=hits, overwrite=True
            )
        )
    with clock.step("verify"):
        verified = verify_pairs(
            VerifyOptions(
                pairs=out / "pairs.csv",
                embeddings=everyone,
                report=out / "verification",
                pictures=unseen,
                overwrite=True,
            ),
            progress,
        )
    figures = verified.as_json()
    result = {
        "out": str(out),
        "page": str(out / _PAGE),
        "drawn": True,
        "people_trained": _TRAINED,
        "people_unseen": _ENROLLED + _STRANGERS,
        **{n: figures[n] for n in ("auc", "auc_ci", "eer", "accuracy", "tar_at_far")},
        **{n: found[n] for n in ("rank1", "fpir", "fnir", "threshold", "probes")},
        "seconds": clock.seconds,
    }
    _show(options, result)
    return result


@dataclass(kw_only=True)
class _Clock:
    """Seconds that each step took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)


def _prepare(options: DemoOptions) -> None:
    out = options.out
    require_parent(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder")
    if (out / _PAGE).exists():
        raise InputError(f"{out} holds a finished demo; give another --out, or remove it")
    begun = out / _BEGUN
    if begun.exists():
        seed = _begun_with(begun)
        if seed != options.seed:
            raise InputError(
                f"{out} holds an unfinished demo with --seed {seed}, not {options.seed}; give that "
                "seed or another --out"
            )
        return
    # A folder of this name, such as `run`, may be the user's: files of a demo would replace others.
    if out.is_dir() and not all(is_temporary(path.name) for path in out.iterdir()):
        raise InputError(f"{out} holds something else; give a folder of its own")
    out.mkdir(FOLDER_MODE, exist_ok=True)
    with whole_file(begun) as temporary:
        temporary.write_text(json.dumps({"seed": options.seed}) + "\n", "utf-8")


def _begun_with(begun: Path) -> int:
    """The seed of an unfinished demo."""
    try:
        return int(json.loads(begun.read_text("utf-8"))["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{begun} is damaged ({error}); give another --out") from None


def _draw(
    folder: Path, people: int, first: int, options: DemoOptions, progress: ProgressCallback
) -> None:
    if not folder.exists():
        write_people(
            folder,
            people=people,
            pictures=_PICTURES,
            seed=options.seed,
            first=first,
            progress=progress,
        )


def _train(options: DemoOptions, progress: ProgressCallback) -> None:
    out = options.out
    settings = TrainOptions(
        data=out / "training-people",
        out=out / "run",
        recipe="demo",
        device=options.device,
        devices="1",
        seed=options.seed,
    )
    finished = read_state(out / "run" / STATE) if (out / "run").exists() else None
    if finished is None or not finished[0].finished:
        train(settings, progress)


def _write_lists(out: Path, unseen: Path, seed: int) -> None:
    """Write who is enrolled, who is asked about, and the pairs to verify.

    The first people are enrolled with half of their pictures and probed with the other half; all
    pictures of the last people, the strangers, are probes.
    """
    people = sorted(p.name for p in unseen.iterdir())
    pictures = {name: sorted(p.name for p in (unseen / name).iterdir()) for name in people}
    enrolled = people[:_ENROLLED]
    gallery = [(n, p) for n in enrolled for p in pictures[n][:_ENROLLED_PICTURES]]
    probes = [(n, p) for n in enrolled for p in pictures[n][_ENROLLED_PICTURES:]]
    probes += [(n, p) for n in people[_ENROLLED:] for p in pictures[n]]
    for name, chosen in (("gallery", gallery), ("probes", probes)):
        rows = [(f"{unseen.name}/{person}/{picture}", person) for person, picture in chosen]
        write_rows(out / f"{name}.csv", ("path", "identity"), rows)
    rng = np.random.default_rng(seed)
    pairs = [_draw_pair(rng, people, pictures, same=i % 2 == 0) for i in range(_PAIRS)]
    write_rows(out / "pairs.csv", ("left", "right", "label"), pairs)


def _draw_pair(
    rng: np.random.Generator, people: list[str], pictures: dict[str, list[str]], *, same: bool
) -> tuple[str, str, int]:
    if same:
        person = people[rng.integers(len(people))]
        one, other = rng.choice(pictures[person], 2, replace=False)
        return f"{person}/{one}", f"{person}/{other}", 1
    a, b = rng.choice(people, 2, replace=False)
    return f"{a}/{rng.choice(pictures[a])}", f"{b}/{rng.choice(pictures[b])}", 0


def _samples(out: Path) -> list[Sample]:
    """Every probe beside its nearest gallery picture; the threshold has decided in `who.csv`."""
    with (out / "who.csv").open(encoding="utf-8") as file:
        decisions = {r["path"]: r["decision"] for r in csv.DictReader(file) if r["rank"] == "1"}
    samples = []
    with (out / "hits.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            truth = row["path"].split("/")[-2]
            enrolled = int(truth.split("_")[1]) <= _TRAINED + _ENROLLED
            decision = decisions[row["path"]]
            answer = row["identity"] if decision == "match" else None
            samples.append(
                Sample(
                    probe=out / row["path"],
                    truth=truth,
                    enrolled=enrolled,
                    match=out / row["match"],
                    answer=row["identity"],
                    score=float(row["score"]),
                    decision=decision,
                    right=answer == (truth if enrolled else None),
                )
            )
    return samples


def _show(options: DemoOptions, result: dict[str, Any]) -> None:
    out = options.out
    record = read_record(out / "run" / "model.safetensors")
    facts = {
        **result,
        "arch": record.arch,
        "pictures_trained": record.training["images"],
        "parameters": describe(ModelOptions(path=out / "run" / "model.safetensors"))["parameters"],
    }
    write_page(
        out / _PAGE,
        facts=facts,
        roc=(out / "verification" / "roc.svg").read_text("utf-8"),
        samples=_samples(out),
        files=_FILES,
        commands=_COMMANDS,
    )
