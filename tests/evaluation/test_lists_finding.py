"""How a list's names find their pictures, also from another folder."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import PairList, read_list
from faceidx.evaluation.lists.finding import Way, find_way, resolve

_KNOWN = ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Bo/Bo_0001.jpg")


def _list(path: Path, names: Sequence[str]) -> PairList:
    path.write_text("left,right,label\n" + "".join(f"{names[0]},{name},1\n" for name in names))
    found = read_list(path)
    assert isinstance(found, PairList)
    return found


def _way(tmp_path: Path, names: Sequence[str], known: Sequence[str] = _KNOWN) -> Way:
    """The way by which all names are found, each in its place."""
    listed = _list(tmp_path / "p.csv", names)
    assert resolve(listed, known).tolist() == list(range(len(names)))
    return find_way(listed, known)


def _under(folder: str) -> list[str]:
    return [folder + key for key in _KNOWN]


def test_names_that_are_known_as_they_stand_need_no_way(tmp_path: Path) -> None:
    assert _way(tmp_path, _KNOWN) == Way() and Way().told() == ""


@pytest.mark.parametrize("folder", ["lfw/", "/home/me/lfw/", "../data/lfw/", "C:/faces/"])
def test_leading_folders_that_all_names_share_are_left_out(tmp_path: Path, folder: str) -> None:
    assert _way(tmp_path, _under(folder)) == Way(drop=folder)
    assert Way(drop="lfw/").told() == "without their leading `lfw/`"


def test_windows_paths_from_a_drive_are_found(tmp_path: Path) -> None:
    names = [name.replace("/", "\\") for name in _under("C:/faces/")]
    assert _way(tmp_path, names) == Way(drop="C:/faces/")


def test_a_folder_is_put_before_all_names(tmp_path: Path) -> None:
    assert _way(tmp_path, _KNOWN, _under("data/aligned/")) == Way(add="data/aligned/")
    assert _way(tmp_path, _under("lfw/"), _under("cut/")) == Way(drop="lfw/", add="cut/")
    assert _way(tmp_path, ["1.jpg", "2.jpg"], ["loose_crop/1.jpg", "loose_crop/2.jpg"]) == Way(
        add="loose_crop/"
    )


def test_pictures_in_two_folders_are_not_chosen_between(tmp_path: Path) -> None:
    listed = _list(tmp_path / "p.csv", _KNOWN)
    with pytest.raises(InputError, match=r"p.csv: .* 'cut/' and in 'raw/'; take pictures from one"):
        resolve(listed, _under("cut/") + _under("raw/"))


def test_a_folder_that_repeats_the_beginning_of_the_name_may_be_there_or_not(
    tmp_path: Path,
) -> None:
    flat = [key.partition("/")[2] for key in _KNOWN]
    assert _way(tmp_path, flat) == Way(unfold=True)
    assert _way(tmp_path, _KNOWN, flat) == Way(unfold=True)
    assert _way(tmp_path, flat, _under("lfw/")) == Way(unfold=True, add="lfw/")


def test_names_of_lfw_find_pictures_that_lie_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("Ann 1 2\nAnn 1 Bo 1\n")
    listed = read_list(tmp_path / "pairs.txt")
    assert isinstance(listed, PairList)
    flat = ["lfw/Ann_0001.png", "lfw/Ann_0002.png", "lfw/Bo_0001.png"]
    assert resolve(listed, flat).tolist() == [0, 1, 2]


def test_names_without_ending_or_with_another_are_found(tmp_path: Path) -> None:
    stems = [key.removesuffix(".jpg") for key in _KNOWN]
    assert _way(tmp_path, stems) == Way()
    assert _way(tmp_path, [f"x/{stem}" for stem in stems]) == Way(drop="x/")
    assert _way(tmp_path, [f"{stem}.png" for stem in stems]) == Way(other_ending=True)
    assert _way(tmp_path, [f"/a/{stem}.png" for stem in stems]) == Way(
        drop="/a/", other_ending=True
    )


def test_a_name_that_fits_two_pictures_of_other_endings_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = _list(tmp_path / "p.csv", ["Ann/Ann_0001.png", "Bo/Bo_0001.png"])
    twice = [*_KNOWN, "Ann/Ann_0001.webp", "Ann/Ann_0001.gif"]
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(
            InputError, match=r"p\.csv:2: a name fits 3 known pictures; keep one"
        ) as error,
    ):
        resolve(listed, twice)
    assert "Ann" not in str(error.value).partition("p.csv")[2]
    assert "fits both Ann/Ann_0001.jpg and Ann/Ann_0001.webp" in caplog.text


def test_a_name_without_ending_that_fits_faces_of_one_picture_says_so(tmp_path: Path) -> None:
    listed = _list(tmp_path / "p.csv", ["Ann/Ann_0001", "Bo/Bo_0001"])
    faces = ["Ann/Ann_0001.jpg#1", "Ann/Ann_0001.jpg#2", "Bo/Bo_0001.jpg#1"]
    with pytest.raises(InputError, match="fits 2 known faces; embed with --detect largest"):
        resolve(listed, faces)


@pytest.mark.parametrize("seed", range(300))
def test_names_written_elsewhere_find_their_own_picture_or_none(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    people = rng.sample(("Ann", "Bo", "Cy", "Ann_Lee", "1", "10", "x"), rng.randint(2, 5))
    number = rng.choice(("{}_{:04d}.jpg", "{}-{}.jpg", "{1}.jpg"))
    inside = [f"{who}/{number.format(who, k)}" for who in people for k in (1, 2, 10)]
    copies = rng.sample(("", "cut/", "raw/", "Ann/", "data/lfw/"), rng.randint(1, 2))
    known = [folder + name for folder in copies for name in inside]
    chosen = rng.sample(inside, rng.randint(2, len(inside)))
    elsewhere = rng.choice(("lfw/", "/home/me/", "raw/", ""))
    ending = rng.choice((".jpg", ".png", ""))
    flat = rng.random() < 0.3 and number[0] == "{" and number[1] == "}"
    names = [elsewhere + name.removesuffix(".jpg") + ending for name in chosen]
    if flat:
        names = [elsewhere + name.rpartition("/")[2] for name in names]
    listed = _list(tmp_path / "p.csv", names)
    try:
        rows = resolve(listed, known)
    except InputError as error:
        assert "p.csv: " in str(error)
        return
    for key, row in zip(listed.keys, rows.tolist(), strict=True):
        inner = chosen[names.index(key)]
        assert row < 0 or known[row].endswith(("/" + inner, inner))
    assert (rows >= 0).all() or len(copies) > 1


def test_a_photo_s_name_finds_its_crop_whose_name_has_png_behind_it(tmp_path: Path) -> None:
    crops = ["Ann/Ann_0001.HEIC.png", "Ann/Ann_0002.jpg", "Bo/Bo_0001.pgm.png", "x.pgm.png.png"]
    names = ["Ann/Ann_0001.HEIC", "Ann/Ann_0002.jpg", "Bo/Bo_0001.pgm", "x.pgm.png"]
    assert _way(tmp_path, names, crops) == Way()
    assert _way(tmp_path, crops, crops) == Way()
    stems = ["Ann/Ann_0001", "Ann/Ann_0002", "Bo/Bo_0001"]
    assert _way(tmp_path, stems, crops) == Way()
    listed = _list(tmp_path / "p.csv", ["a.pgm", "b.png.png"])
    assert resolve(listed, ["a.pgm.png", "a.pgm", "b.png"]).tolist() == [1, -1]


def test_one_name_that_is_known_settles_the_way_for_all(tmp_path: Path) -> None:
    listed = _list(tmp_path / "p.csv", [_KNOWN[0], "lfw/Ann/Ann_0002.jpg"])
    assert resolve(listed, _KNOWN).tolist() == [0, -1]


def test_a_list_of_other_pictures_is_not_made_to_fit(tmp_path: Path) -> None:
    names = ["x/Ann/Ann_0001.jpg", "x/Cy/1.jpg", "x/Di/1.jpg", "x/Ed/1.jpg"]
    assert resolve(_list(tmp_path / "p.csv", names), _KNOWN).tolist() == [-1] * 4
    numbers, elsewhere = ["1.jpg", "2.jpg", "3.jpg"], ["Ann/1.jpg", "Bo/2.jpg", "Cy/3.jpg"]
    assert resolve(_list(tmp_path / "q.csv", numbers), elsewhere).tolist() == [-1] * 3
