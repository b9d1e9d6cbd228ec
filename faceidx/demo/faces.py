"""Faces to try everything on: drawn people with stable traits, and pictures that vary.

A picture depends only on the seed, the person's number and the picture's number, so any part of a
set can be drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from faceidx.demo import features, wear
from faceidx.demo.features import Expression
from faceidx.demo.head import Head, Pose
from faceidx.demo.light import Light, background, camera, draw_light, shade
from faceidx.demo.traits import Colour, Traits, draw_person
from faceidx.errors import InputError, JobError
from faceidx.files import whole_folder
from faceidx.progress import Progress, ProgressCallback, silent
from faceidx.resources import usable_cores

__all__ = ["Traits", "draw_face", "draw_person", "write_people"]

# Drawn this many times larger, then averaged down: Pillow's polygons have hard edges.
_SUPERSAMPLING = 3
# Below this many pictures, starting processes costs more than it saves.
_WORTH_PROCESSES = 200
_SMALLEST = 16  # pixels a side; below it a face is no face
_P_GLASSES_WORN = 0.85
_NOT_ZERO = [0] + [255] * 255


@dataclass(frozen=True, kw_only=True)
class _Cover:
    """What hides a part of the face in one picture."""

    kind: str
    """One of `_COVERS`, or empty."""
    colour: Colour
    side: int
    amount: float


# What may hide a part of the face, and how often it does.
_COVERS = {"sunglasses": 0.035, "mask": 0.03, "hat": 0.06, "hand": 0.04, "bar": 0.04}


def draw_face(traits: Traits, rng: np.random.Generator, *, size: int = 112) -> np.ndarray:
    """Draw one picture of a person: pose, light, expression, cover, background by lot.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    pose, look, light, cover = _draw_pose(rng), _draw_look(rng), draw_light(rng), _draw_cover(rng)
    canvas = size * _SUPERSAMPLING
    head = Head(traits, pose, canvas)
    clothes: Colour = tuple(rng.uniform(15, 225, 3).tolist())
    glasses = traits.glasses and rng.random() < _P_GLASSES_WORN

    image = background(rng, canvas)
    empty = image.copy()
    draw = ImageDraw.Draw(image)
    _draw_layers(draw, head, traits, look, light, clothes)
    _draw_worn(draw, head, traits, cover, glasses=glasses)
    drawn = ImageChops.difference(image, empty).convert("L").point(_NOT_ZERO)
    pixels = np.asarray(image.reduce(_SUPERSAMPLING), dtype=np.float32)
    inside = np.asarray(drawn.reduce(_SUPERSAMPLING), dtype=np.float32) / 255
    return camera(shade(pixels, inside, head, traits, light), rng)


def _draw_layers(
    draw: ImageDraw.ImageDraw,
    head: Head,
    traits: Traits,
    look: Expression,
    light: Light,
    clothes: Colour,
) -> None:
    near = -1 if head.pose.yaw > 0 else 1
    wear.hair_behind(draw, head, traits)
    features.neck(draw, head, traits, clothes)
    features.ear(draw, head, traits, -near)
    features.skin(draw, head, traits)
    features.ear(draw, head, traits, near)
    features.wrinkles(draw, head, traits, look)
    features.beard(draw, head, traits)
    features.eyes(draw, head, traits, look)
    features.mouth(draw, head, traits, look)
    features.nose(draw, head, traits, light.direction[0])
    features.brows(draw, head, traits, look)
    wear.hair_front(draw, head, traits)


def _draw_worn(
    draw: ImageDraw.ImageDraw, head: Head, traits: Traits, cover: _Cover, *, glasses: bool
) -> None:
    if cover.kind == "mask":
        wear.mask(draw, head, traits, features.mix((225, 232, 236), cover.colour, 0.35))
    if cover.kind == "sunglasses":
        wear.sunglasses(draw, head, traits, cover.colour)
    elif glasses:
        wear.glasses(draw, head, traits)
    if cover.kind == "hat":
        wear.hat(draw, head, cover.colour, cover.amount)
    elif cover.kind == "hand":
        wear.hand(draw, head, traits.skin, cover.side, -0.5 + 1.4 * cover.amount)
    elif cover.kind == "bar":
        wear.bar(draw, head, cover.colour, cover.side, 0.15 + 0.2 * cover.amount)


def _draw_pose(rng: np.random.Generator) -> Pose:
    def around(spread: float, most: float) -> float:
        return float(np.clip(rng.normal(0, spread), -most, most))

    return Pose(
        yaw=around(0.22, 0.5),
        pitch=around(0.1, 0.24),
        roll=around(0.07, 0.2),
        scale=0.39 * (1 + around(0.04, 0.09)),
        shift=(around(0.02, 0.05), 0.02 + around(0.02, 0.05)),
    )


def _draw_look(rng: np.random.Generator) -> Expression:
    talks = rng.random() < 0.35
    blinks = rng.random() < 0.05
    return Expression(
        smile=float(np.clip(rng.normal(0.3, 0.45), -0.4, 1)),
        mouth_open=float(rng.uniform(0.15, 0.9)) if talks else 0.0,
        brow_raise=float(np.clip(rng.normal(0, 0.5), -0.6, 1.2)),
        brow_furrow=float(np.clip(rng.normal(0, 0.4), 0, 1)),
        eye_open=0.12 if blinks else float(rng.uniform(0.75, 1.15)),
        gaze=(float(rng.normal(0, 0.45)), float(rng.normal(0, 0.4))),
    )


def _draw_cover(rng: np.random.Generator) -> _Cover:
    chance, kind = rng.random(), ""
    for name, share in _COVERS.items():
        if 0 <= chance < share:
            kind = name
        chance -= share
    red, green, blue = rng.uniform(20, 220, 3).tolist()
    side = -1 if rng.random() < 0.5 else 1
    return _Cover(kind=kind, colour=(red, green, blue), side=side, amount=float(rng.random()))


def write_people(
    folder: Path,
    *,
    people: int,
    pictures: int,
    seed: int,
    first: int = 0,
    size: int = 112,
    processes: int | None = None,
    progress: ProgressCallback = silent,
) -> list[str]:
    """Draw people into a new folder, as `person_0001/person_0001_01.jpg` and so on.

    The files are the same whatever the number of processes.

    Args:
        people: how many people; they are numbered from `first` + 1.
        pictures: how many of each.
        first: how many people to pass over, so that two sets of one seed share nobody.
        processes: None for one a core.

    Returns:
        The pictures' paths relative to `folder`, `/`-separated, in order.

    Raises:
        InputError: `folder` exists already, its parent folder is missing, or a number is too small.
        JobError: the disk is full, or a drawing process was killed.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; faces are drawn only into a new folder")
    if min(people, pictures) < 1 or min(first, seed) < 0 or size < _SMALLEST:
        raise InputError(
            "people and pictures are at least 1, first and seed at least 0, "
            f"size at least {_SMALLEST}"
        )
    total = people * pictures
    if processes is None:
        processes = usable_cores() if total >= _WORTH_PROCESSES else 1
    numbers = range(first + 1, first + people + 1)
    keys: list[str] = []
    with whole_folder(folder) as unfinished:
        jobs = [_Job(unfinished, number, pictures, seed, size) for number in numbers]
        with _drawn(jobs, min(processes, people)) as results:
            for drawn in results:
                keys += drawn
                progress(Progress("draw faces", len(keys), total))
    return keys


@dataclass(frozen=True)
class _Job:
    """One person to draw; plain values only, because it travels to another process."""

    folder: Path
    number: int
    pictures: int
    seed: int
    size: int


@contextmanager
def _drawn(jobs: list[_Job], processes: int) -> Iterator[Iterator[list[str]]]:
    """Do the jobs, in this process or in several; results come in the order of the jobs."""
    if processes <= 1:
        yield map(_write_person, jobs)
        return
    # spawn: forking a process that runs torch's threads can hang the child.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield pool.map(_write_person, jobs)
    except BrokenProcessPool as error:
        raise JobError("a process that drew faces was killed; is there memory enough?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_person(job: _Job) -> list[str]:
    """Draw one person's pictures into their folder and return the paths relative to the set."""
    # Picture 0 is nobody's: it seeds the traits. NumPy's seeds ignore trailing zeros, so the
    # numbers of people and pictures start at 1.
    traits = draw_person(np.random.default_rng([job.seed, job.number, 0]))
    name = f"person_{job.number:04d}"
    (job.folder / name).mkdir()
    keys = []
    for picture in range(1, job.pictures + 1):
        rng = np.random.default_rng([job.seed, job.number, picture])
        face = Image.fromarray(draw_face(traits, rng, size=job.size))
        key = f"{name}/{name}_{picture:02d}.jpg"
        face.save(job.folder / key, quality=int(rng.integers(70, 96)))
        keys.append(key)
    return keys
