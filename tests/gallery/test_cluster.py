from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.gallery.cluster import ClusterOptions, cluster
from tests.conftest import draw
from tests.gallery.conftest import WriteFaces, clustered

_NAMES = [f"p{n // 5}" for n in range(60)]


@pytest.fixture
def faces(write_faces: WriteFaces) -> Path:
    """12 people with 5 pictures each, the rows shuffled."""
    order = np.random.default_rng(0).permutation(60)
    vectors = clustered(12, 5, spread=0.4)[order]
    return write_faces("faces.h5", vectors, [_NAMES[n] for n in order])


def _cluster(file: Path, out: Path, **options: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    result = cluster(ClusterOptions(file=file, out=out, **options))
    with out.open(newline="") as text:
        return result, list(csv.DictReader(text))


def test_people_come_out_as_groups_with_the_most_typical_face_first(
    faces: Path, tmp_path: Path
) -> None:
    result, rows = _cluster(faces, tmp_path / "g.csv", threshold=0.6)
    assert list(rows[0]) == ["path", "group", "size", "score", "identity", "duplicate_of"]
    assert (result["faces"], result["groups"], result["singles"]) == (60, 12, 0)
    assert result["pairwise"] == {"precision": 1, "recall": 1, "f1": 1}
    assert result["bcubed"]["f1"] == 1
    for group in range(12):
        own = rows[5 * group : 5 * group + 5]
        assert {row["group"] for row in own} == {str(group + 1)}
        assert {row["size"] for row in own} == {"5"}
        assert len({row["identity"] for row in own}) == 1
        scores = [float(row["score"]) for row in own]
        assert scores == sorted(scores, reverse=True)


def test_groups_are_numbered_by_size_and_singles_come_last(
    write_faces: WriteFaces, tmp_path: Path
) -> None:
    eye = np.eye(16, dtype=np.float32)
    file = write_faces("f.h5", eye[[0, 1, 1, 2, 2, 2, 3]], [""] * 7)
    result, rows = _cluster(file, tmp_path / "g.csv", threshold=0.5)
    assert [(row["group"], row["size"]) for row in rows] == [
        *[("1", "3")] * 3, *[("2", "2")] * 2, ("3", "1"), ("4", "1")
    ]  # fmt: skip
    assert (result["groups"], result["singles"], result["largest"]) == (2, 2, 3)
    assert "pairwise" not in result


@pytest.mark.parametrize("threshold", [0.5, None])
def test_the_order_of_the_faces_changes_nothing(
    write_faces: WriteFaces, tmp_path: Path, threshold: float | None
) -> None:
    vectors = clustered(15, 4, spread=0.8)
    paths = [f"{n}.jpg" for n in range(60)]
    found = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        names = [paths[n] for n in order]
        file = write_faces(f"{seed}.h5", vectors[order], [""] * 60, paths=names)
        result, rows = _cluster(file, tmp_path / f"{seed}.csv", threshold=threshold)
        groups: dict[str, set[str]] = {}
        for row in rows:
            groups.setdefault(row["group"], set()).add(row["path"])
        found.append((result["threshold"], {frozenset(group) for group in groups.values()}))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("count", [2, 3, 300])
def test_faces_that_are_all_the_same_are_one_group(
    write_faces: WriteFaces, tmp_path: Path, count: int
) -> None:
    vectors = np.repeat(clustered(1, 1, seed=3), count, axis=0)
    result, _ = _cluster(write_faces("same.h5", vectors, ["a"] * count), tmp_path / "g.csv")
    assert (result["groups"], result["singles"], result["largest"]) == (1, 0, count)


def test_near_duplicates_name_the_first_of_their_kind(
    write_faces: WriteFaces, tmp_path: Path
) -> None:
    vectors = clustered(4, 3, spread=0.8)
    vectors[7] = vectors[2]
    vectors[8] = vectors[2]
    file = write_faces("d.h5", vectors, [""] * 12)
    result, rows = _cluster(file, tmp_path / "g.csv", threshold=0.5, duplicates=0.999)
    assert result["duplicates"] == 2
    copies = {row["path"]: row["duplicate_of"] for row in rows if row["duplicate_of"]}
    assert copies == {"root/7.jpg": "root/2.jpg", "root/8.jpg": "root/2.jpg"}
    assert _cluster(file, tmp_path / "n.csv")[0]["duplicates"] is None


def test_faces_that_cannot_be_compared_are_listed_and_in_no_group(
    write_faces: WriteFaces, tmp_path: Path
) -> None:
    vectors = clustered(2, 3).copy()
    vectors[1] = np.nan
    vectors[4] = 0
    file = write_faces("bad.h5", vectors, [f"p{n // 3}" for n in range(6)])
    result, rows = _cluster(file, tmp_path / "g.csv", threshold=0.3)
    assert (result["faces"], result["refused"]) == (6, 2)
    assert [row["path"] for row in rows if not row["group"]] == ["p0/1.jpg", "p1/4.jpg"]
    vectors[:] = np.nan
    with pytest.raises(InputError, match="no face that can be compared"):
        _cluster(write_faces("none.h5", vectors, [""] * 6), tmp_path / "h.csv")


def test_pictures_are_copied_a_folder_a_group_under_safe_names(
    write_faces: WriteFaces, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    paths = ["a/1.png", "b/=cmd|x;rm -rf.png", "../../etc/passwd", "c/single.png", "gone.png"]
    for number, path in enumerate(paths[:2] + paths[3:4]):
        draw(root / path, seed=number)
    eye = np.eye(16, dtype=np.float32)
    file = write_faces("f.h5", eye[[0, 0, 0, 1, 0]], [""] * 5, paths=paths)
    copies = tmp_path / "copies"
    result, _ = _cluster(file, tmp_path / "g.csv", threshold=0.5, copy_to=copies, pictures=root)
    assert (result["copied"], result["not_copied"]) == (3, 2)
    found = {str(path.relative_to(copies)) for path in copies.rglob("*") if path.is_file()}
    assert found == {"group-1/0001-a_1.png", "group-1/0002-b_cmd_x_rm_-rf.png",
                     "singles/0001-c_single.png"}  # fmt: skip
    assert (copies / "group-1/0001-a_1.png").read_bytes() == (root / "a/1.png").read_bytes()
    assert all(path.stat().st_mode & 0o077 == 0 for path in copies.rglob("*"))
    with pytest.raises(InputError, match="exists already"):
        _cluster(file, tmp_path / "h.csv", copy_to=copies, pictures=root)
    with pytest.raises(InputError, match="would count among its pictures the next time"):
        _cluster(file, tmp_path / "h.csv", copy_to=root / "groups", pictures=root)
    with pytest.raises(InputError, match="--pictures ROOT"):
        _cluster(file, tmp_path / "h.csv", copy_to=tmp_path / "new")
    assert not (tmp_path / "h.csv").exists()


def test_the_command_that_was_killed_while_copying_can_be_run_again(
    write_faces: WriteFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, copies = tmp_path / "root", tmp_path / "copies"
    for number in (1, 2, 3):
        draw(root / f"{number}.png", seed=number)
    eye = np.eye(16, dtype=np.float32)
    file = write_faces("f.h5", eye[[0, 0, 1]], [""] * 3, paths=["1.png", "2.png", "3.png"])
    words = {"threshold": 0.5, "copy_to": copies, "pictures": root}
    copied: list[object] = []

    def killed(source: Path, target: Path) -> None:
        copied.append(target.write_bytes(source.read_bytes()))
        if len(copied) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            _cluster(file, tmp_path / "g.csv", **words)
    assert len(list(tmp_path.glob(".faceidx-tmp-*"))) == 1
    result, rows = _cluster(file, tmp_path / "g.csv", **words)
    assert (result["copied"], len(rows)) == (3, 3)
    assert not list(tmp_path.glob(".*"))


def test_a_folder_without_any_of_the_pictures_is_refused_before_anything_is_written(
    write_faces: WriteFaces, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "crops").mkdir()
    for number in (1, 2):
        draw(tmp_path / "crops" / f"a#{number}.jpg", seed=number)
    eye = np.eye(16, dtype=np.float32)
    file = write_faces("f.h5", eye[[0, 1]], ["", ""], paths=["a.jpg#1", "a.jpg#2"])
    copies = tmp_path / "copies"
    words = {"threshold": 0.5, "copy_to": copies}
    with pytest.raises(InputError, match=r"others holds none of the 2 pictures of .*f\.h5"):
        _cluster(file, tmp_path / "g.csv", pictures=tmp_path / "others", **words)
    assert not copies.exists() and not (tmp_path / "g.csv").exists()
    result, _ = _cluster(file, tmp_path / "g.csv", pictures=tmp_path / "crops", **words)
    assert (result["copied"], result["not_copied"]) == (2, 0)
    assert len({path.read_bytes() for path in copies.rglob("*.jpg")}) == 2


def test_wrong_thresholds_and_outputs_that_exist_are_refused(faces: Path, tmp_path: Path) -> None:
    for threshold, message in (("nan", "no number"), ("x.json", "no such threshold file")):
        with pytest.raises(InputError, match=message):
            _cluster(faces, tmp_path / "g.csv", threshold=threshold)
    with pytest.raises(InputError, match="no cosine"):
        _cluster(faces, tmp_path / "g.csv", duplicates=1.5)
    _cluster(faces, tmp_path / "g.csv")
    with pytest.raises(InputError, match="--overwrite"):
        _cluster(faces, tmp_path / "g.csv")


def test_the_people_of_lfw_are_found(lfw_dev: Path, tmp_path: Path) -> None:
    told, _ = _cluster(lfw_dev, tmp_path / "groups.csv")
    assert told["pairwise"]["precision"] > 0.93
    assert told["pairwise"]["recall"] > 0.93
    assert told["bcubed"]["f1"] > 0.96
