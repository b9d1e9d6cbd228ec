"""Drawn people: reproducible, complete, the same person from picture to picture."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceidx.demo import faces
from faceidx.demo.faces import Traits, draw_face, draw_person, write_people
from faceidx.demo.head import Head, Pose
from faceidx.errors import InputError, JobError
from faceidx.progress import Progress


def _person(number: int) -> Traits:
    return draw_person(np.random.default_rng([11, number, 0]))


def _hashes(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.jpg"))
    }


@pytest.mark.parametrize("size", [32, 64, 97, 112])
def test_a_face_is_a_square_rgb_picture_of_the_size_asked_for(size: int) -> None:
    face = draw_face(_person(1), np.random.default_rng(0), size=size)
    assert face.shape == (size, size, 3)
    assert face.dtype == np.uint8
    assert face.std() > 10


def test_the_same_seed_draws_the_same_person_and_the_same_picture() -> None:
    one, again, other = _person(1), _person(1), _person(2)
    assert one == again
    assert one != other
    pictures = [draw_face(p, np.random.default_rng(5)) for p in (one, again, other)]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_two_pictures_of_a_person_differ() -> None:
    rng = np.random.default_rng(5)
    one, other = (draw_face(_person(1), rng).astype(float) for _ in range(2))
    assert np.abs(one - other).mean() > 5


def test_traits_cannot_change_after_they_are_drawn() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _person(1).jaw = 0.1  # type: ignore[misc]


def test_the_traits_of_many_people_are_finite_and_their_colours_are_colours() -> None:
    for number in range(1, 200):
        traits = _person(number)
        for name, value in dataclasses.asdict(traits).items():
            assert np.isfinite(np.asarray(value, dtype=float)).all(), name
        for colour in (traits.skin, traits.hair, traits.iris, traits.lips, traits.frame):
            assert 0 <= min(colour) <= max(colour) <= 255


def test_every_trait_differs_between_people() -> None:
    people = [dataclasses.asdict(_person(number)) for number in range(1, 200)]
    for name in people[0]:
        values = [person[name] for person in people]
        assert len({str(v) for v in values}) > 1, name
        if isinstance(values[0], float) and 0.0 not in values:  # 0: most people lack the thing
            assert len(set(values)) > 100, name


def test_a_persons_average_picture_is_nearer_to_their_own_other_average_than_to_others() -> None:
    people, pictures = 8, 24
    averages = np.zeros((people, 2, 48 * 48 * 3))
    for person in range(people):
        for half in range(2):
            rng = np.random.default_rng([3, person, half])
            drawn = [draw_face(_person(person), rng, size=48) for _ in range(pictures)]
            averages[person, half] = np.mean(drawn, axis=0).ravel()
    distance = np.linalg.norm(averages[:, None, 0] - averages[None, :, 1], axis=-1)
    own = np.diag(distance)
    assert own.mean() < 0.7 * distance[~np.eye(people, dtype=bool)].mean()
    assert (distance.argmin(axis=1) == np.arange(people)).sum() >= people - 1


def test_a_head_turned_to_the_right_moves_the_nose_further_than_the_eyes() -> None:
    traits = _person(1)

    def middle(yaw: float, lift: float) -> float:
        pose = Pose(yaw=yaw, pitch=0.0, roll=0.0, scale=0.4, shift=(0.0, 0.0))
        point = Head(traits, pose, 100).surface(np.array([0.0]), np.array([0.2]), lift)
        return float(point[0, 0])

    assert middle(0.0, 0.0) == pytest.approx(50)
    assert 50 < middle(0.4, 0.0) < middle(0.4, 0.2)
    assert middle(-0.4, 0.0) == pytest.approx(100 - middle(0.4, 0.0))


@pytest.mark.parametrize("yaw", [-0.5, -0.2, 0.0, 0.3, 0.5])
def test_nothing_on_the_face_leaves_its_contour_when_the_head_turns(yaw: float) -> None:
    pose = Pose(yaw=yaw, pitch=0.0, roll=0.0, scale=0.4, shift=(0.0, 0.0))
    head = Head(_person(1), pose, 100)
    y = np.linspace(-0.8, 0.8, 30)
    edge = 50 + 40 * head.half_width(y)
    for x in (-2.0, -0.6, 0.0, 0.6, 2.0):  # beyond the edge counts as on the edge
        places = head.surface(np.full(30, x), y)[:, 0]
        assert (places <= edge + 1e-6).all()
        assert (places >= 100 - edge - 1e-6).all()


def test_write_people_fills_a_folder_for_every_person_and_lists_it_in_order(
    tmp_path: Path,
) -> None:
    reports: list[Progress] = []
    keys = write_people(
        tmp_path / "p", people=3, pictures=4, seed=1, first=9, size=40, progress=reports.append
    )
    names = [f"person_{n:04d}" for n in (10, 11, 12)]
    assert keys == [f"{name}/{name}_{k:02d}.jpg" for name in names for k in (1, 2, 3, 4)]
    assert sorted(_hashes(tmp_path / "p")) == keys
    for key in keys:
        with Image.open(tmp_path / "p" / key) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (40, 40))
    assert len(set(_hashes(tmp_path / "p").values())) == len(keys)
    assert [(r.done, r.total) for r in reports] == [(4, 12), (8, 12), (12, 12)]


def test_the_files_are_the_same_whatever_the_number_of_processes(tmp_path: Path) -> None:
    one = write_people(tmp_path / "one", people=4, pictures=2, seed=2**40, size=40, processes=1)
    two = write_people(tmp_path / "two", people=4, pictures=2, seed=2**40, size=40, processes=2)
    assert one == two
    assert _hashes(tmp_path / "one") == _hashes(tmp_path / "two")


def test_a_part_of_a_set_drawn_again_is_the_same_and_another_seed_is_not(tmp_path: Path) -> None:
    write_people(tmp_path / "all", people=3, pictures=3, seed=4, size=40)
    write_people(tmp_path / "part", people=1, pictures=2, seed=4, first=1, size=40)
    write_people(tmp_path / "other", people=1, pictures=2, seed=5, first=1, size=40)
    whole, part = _hashes(tmp_path / "all"), _hashes(tmp_path / "part")
    assert list(part) == ["person_0002/person_0002_01.jpg", "person_0002/person_0002_02.jpg"]
    assert part.items() <= whole.items()
    assert not part.items() & _hashes(tmp_path / "other").items()


def test_write_people_draws_only_into_a_new_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("stay")
    with pytest.raises(InputError, match="exists already"):
        write_people(tmp_path, people=1, pictures=1, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "wrong", [{"people": 0}, {"pictures": 0}, {"first": -1}, {"seed": -1}, {"size": 8}]
)
def test_numbers_that_make_no_set_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        write_people(tmp_path / "p", **{"people": 1, "pictures": 1, "seed": 0, **wrong})
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_when_drawing_fails_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Traits, rng: np.random.Generator, *, size: int) -> np.ndarray:
        if any(tmp_path.rglob("person_0002")):
            raise RuntimeError("stop")
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(faces, "draw_face", broken)
    with pytest.raises(RuntimeError, match="stop"):
        write_people(tmp_path / "p", people=2, pictures=1, seed=0, processes=1)
    assert not list(tmp_path.iterdir())


def test_a_killed_drawing_process_is_reported_as_a_failed_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        def __init__(self, *_: object, **__: object) -> None: ...

        def map(self, *_: object) -> list[list[str]]:
            raise BrokenProcessPool("killed")

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr(faces, "ProcessPoolExecutor", Killed)
    with pytest.raises(JobError, match="memory"):
        write_people(tmp_path / "p", people=2, pictures=1, seed=0, processes=2)
    assert not list(tmp_path.iterdir())
