from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faceidx.embedding.store import EmbeddingFile, Left
from faceidx.errors import InputError
from faceidx.evaluation import scoring, templates
from faceidx.evaluation.lists.pairs import PairList, Templates
from faceidx.evaluation.scoring import (
    NO_FACE,
    NOT_EMBEDDED,
    KnownEmbeddings,
    ScoredPairs,
    cosine_scores,
    known_embeddings,
    score_pairs,
    units_of_pairs,
)

Write = Callable[..., Path]


def _listed(pairs: list[tuple[str, str, bool]], **more: object) -> PairList:
    keys = list(dict.fromkeys(key for left, right, _ in pairs for key in (left, right)))
    return PairList(
        path=Path("pairs.txt"),
        format="csv",
        keys=keys,
        left=np.array([keys.index(left) for left, _, _ in pairs]),
        right=np.array([keys.index(right) for _, right, _ in pairs]),
        genuine=np.array([genuine for _, _, genuine in pairs]),
        lines=np.arange(1, len(pairs) + 1),
        **more,  # type: ignore[arg-type]
    )


def _score(pairs: PairList, path: Path) -> ScoredPairs:
    with EmbeddingFile(path) as file:
        return score_pairs(pairs, known_embeddings(file))


@pytest.fixture
def unit() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(500, 24)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("few", [0, 10_000], ids=["in tiles", "in the order of the list"])
@pytest.mark.parametrize("dense", [0.0, 1.1], ids=["as matrices", "pair by pair"])
@pytest.mark.parametrize("pairs", [1, 7, 5000])
def test_scores_are_the_dot_products_of_each_pair(
    unit: np.ndarray, monkeypatch: pytest.MonkeyPatch, few: int, dense: float, pairs: int
) -> None:
    monkeypatch.setattr(scoring, "_FEW_PAIRS", few)
    monkeypatch.setattr(scoring, "_DENSE", dense)
    monkeypatch.setattr(scoring, "_TILE", 64)
    monkeypatch.setattr(scoring, "_BLOCK_PAIRS", 50)
    left, right = np.random.default_rng(1).integers(0, len(unit), (2, pairs))
    found = cosine_scores(unit, left, right)
    expected = [
        float(unit[one].astype(float) @ unit[other].astype(float))
        for one, other in zip(left, right, strict=True)
    ]
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-6)


def test_only_the_rows_that_the_list_names_are_read(
    embeddings: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"p{i:03}/a.jpg" for i in range(200)]
    path = embeddings(keys)
    monkeypatch.setattr(scoring, "_READ_ROWS", 16)
    read: list[int] = []
    vectors = EmbeddingFile.vectors

    def watched(file: EmbeddingFile, rows: slice = slice(None)) -> np.ndarray:
        read.extend(range(*rows.indices(file.count)))
        return vectors(file, rows)

    monkeypatch.setattr(EmbeddingFile, "vectors", watched)
    scored = _score(_listed([(keys[3], keys[5], False), (keys[150], keys[3], False)]), path)
    assert read == [3, 4, 5, 150]
    with EmbeddingFile(path) as file:
        whole = vectors(file)
    assert scored.scores[1] == pytest.approx(float(whole[150] @ whole[3]), abs=1e-6)


def test_a_list_scored_in_parts_gives_the_same_and_tells_of_all_pairs(
    embeddings: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"p{i // 4}/{i}.jpg" for i in range(40)]
    path = embeddings(keys)
    sides = np.random.default_rng(0).integers(0, 44, (100, 2))  # some are of pictures 40 to 43
    names = [f"p{i // 4}/{i}.jpg" for i in range(44)]
    listed = _listed([(names[a], names[b], a // 4 == b // 4) for a, b in sides])
    whole = _score(listed, path)
    assert 0 < len(whole.missing) < 100
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(scoring, "_AT_ONCE", 7)
    with EmbeddingFile(path) as file:
        parts = score_pairs(
            listed, known_embeddings(file), lambda p: told.append((p.done, p.total))
        )
    assert parts.scores == pytest.approx(whole.scores, abs=1e-6)
    assert parts.found.tolist() == whole.found.tolist() and parts.missing == whole.missing
    assert parts.units.left.tolist() == whole.units.left.tolist()
    found = int(whole.found.sum())
    assert len(told) == 15 and told == sorted(told) and told[-1] == (found, found)


def test_a_pair_naming_an_unknown_picture_is_returned_with_line_and_reason(
    embeddings: Write,
) -> None:
    left = Left(failed=[("b/1.jpg", "truncated")], no_face=["c/1.jpg"])
    path = embeddings(["a/1.jpg", "a/2.jpg"], left=left)
    pairs = _listed(
        [
            ("a/1.jpg", "a/2.jpg", True),
            ("a/1.jpg", "b/1.jpg", False),
            ("c/1.jpg", "a/2.jpg", False),
            ("d/1.jpg", "d/1.jpg", True),
            ("b/1.jpg", "c/1.jpg", False),
        ]
    )
    scored = _score(pairs, path)
    assert scored.found.tolist() == [True, False, False, False, False]
    assert [(m.line, m.left, m.right, m.genuine, m.reason) for m in scored.missing] == [
        (2, "a/1.jpg", "b/1.jpg", False, "b/1.jpg: truncated"),
        (3, "c/1.jpg", "a/2.jpg", False, f"c/1.jpg: {NO_FACE}"),
        (4, "d/1.jpg", "d/1.jpg", True, f"d/1.jpg: {NOT_EMBEDDED}"),
        (5, "b/1.jpg", "c/1.jpg", False, f"b/1.jpg: truncated; c/1.jpg: {NO_FACE}"),
    ]
    assert scored.missing_pictures == {
        "b/1.jpg": "truncated",
        "c/1.jpg": NO_FACE,
        "d/1.jpg": NOT_EMBEDDED,
    }


def test_names_without_suffix_find_their_picture_and_their_reason(embeddings: Write) -> None:
    path = embeddings(["a/a_1.jpg", "a/a_2.png"], left=Left(failed=[("b/b_1.jpg", "damaged")]))
    pairs = _listed([("a/a_1", "a/a_2", True), ("a/a_1", "b/b_1", False)], stems=True)
    scored = _score(pairs, path)
    assert scored.found.tolist() == [True, False]
    assert scored.missing[0].reason == "b/b_1: damaged"
    assert scored.pictures[:2] == ["a/a_1.jpg", "a/a_2.png"]


def test_a_list_of_other_pictures_is_refused(embeddings: Write) -> None:
    path = embeddings(["a/1.jpg"])
    with pytest.raises(InputError, match=r"none of its 1 pairs .* the same pictures") as error:
        _score(_listed([("x/1.jpg", "x/2.jpg", True)]), path)
    assert "x/1.jpg" not in str(error.value)  # a name of a person, as like as not
    path = embeddings(["x/1.jpg#1", "x/2.jpg#1"])
    with pytest.raises(InputError, match="--detect largest"):
        _score(_listed([("x/1.jpg", "x/2.jpg", True)]), path)


def test_an_embeddings_file_without_rows_is_refused(embeddings: Write) -> None:
    path = embeddings([], vectors=np.zeros((0, 4)))
    with pytest.raises(InputError, match="holds no embedding"):
        _score(_listed([("x/1.jpg", "x/2.jpg", True)]), path)


def test_embeddings_that_are_no_numbers_are_refused(embeddings: Write) -> None:
    path = embeddings(["a/1.jpg", "a/2.jpg"], vectors=np.array([[1.0, 0], [np.nan, 1]]))
    with pytest.raises(InputError, match="no finite numbers"):
        _score(_listed([("a/1.jpg", "a/2.jpg", True)]), path)


def _naive_template(faces: list[tuple[int, np.ndarray]]) -> np.ndarray:
    media: dict[int, list[np.ndarray]] = {}
    for number, vector in faces:
        media.setdefault(number, []).append(vector)
    mean = np.mean([np.mean(vectors, axis=0) for vectors in media.values()], axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("at_once", [1, 5, 65536])
def test_a_template_is_the_mean_of_its_medias_means(
    embeddings: Write, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(templates, "_FACES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    keys = [f"img/{i}.jpg" for i in range(12)]
    path = embeddings(keys, vectors=rng.normal(size=(12, 8)))
    faces = 30
    picture, template, media = (rng.integers(0, n, faces) for n in (12, 5, 3))
    template[:5] = np.arange(5)  # none is empty
    pairs = PairList(
        path=Path("ijb"),
        format="ijb",
        keys=[str(i) for i in range(5)],
        left=np.array([0, 1, 2, 3]),
        right=np.array([1, 4, 0, 2]),
        genuine=np.array([True, False, True, False]),
        lines=np.arange(1, 5),
        templates=Templates(pictures=keys, picture=picture, template=template, media=media),
    )
    scored = _score(pairs, path)
    with EmbeddingFile(path) as file:
        vectors = file.vectors()
    means = [
        _naive_template(
            [(int(media[f]), vectors[picture[f]]) for f in range(faces) if template[f] == t]
        )
        for t in range(5)
    ]
    expected = [
        means[one] @ means[other] for one, other in zip(pairs.left, pairs.right, strict=True)
    ]
    assert scored.scores == pytest.approx(expected, abs=1e-6)
    assert scored.missing == []


def test_a_template_is_made_from_the_pictures_there_are_and_missing_without_any(
    embeddings: Write,
) -> None:
    path = embeddings(["1.jpg", "2.jpg"], vectors=np.array([[1.0, 0], [0, 1]]))
    pairs = PairList(
        path=Path("ijb"),
        format="ijb",
        keys=["10", "11", "12"],
        left=np.array([0, 0]),
        right=np.array([1, 2]),
        genuine=np.array([True, False]),
        lines=np.array([1, 2]),
        templates=Templates(
            pictures=["1.jpg", "2.jpg", "3.jpg"],
            picture=np.array([0, 0, 2, 1, 2]),
            template=np.array([0, 1, 1, 1, 2]),
            media=np.array([1, 1, 1, 2, 1]),
        ),
    )
    scored = _score(pairs, path)
    assert scored.scores[0] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert [(m.line, m.reason) for m in scored.missing] == [
        (2, "12: none of its pictures is embedded")
    ]
    assert scored.missing_pictures == {"3.jpg": NOT_EMBEDDED}
    assert scored.units.kind == "templates"


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [
        ([("a/1", "a/2", True), ("a/1", "b/1", False)], "identities"),
        ([("all/1", "all/2", True), ("all/1", "all/3", False)], "pictures"),
        ([("1", "2", True), ("1", "3", False)], "pictures"),
        ([("x/front/1", "x/side/2", True), ("x/front/1", "y/front/1", False)], "identities"),
        ([("f/1/x", "f/2/x", True), ("f/1/x", "f/3/x", False)], "pictures"),
        (
            [("Ann_Lee_0001.jpg", "Ann_Lee_2.jpg", True), ("Ann_Lee_0001.jpg", "Bo_1.jpg", False)],
            "identities",
        ),
        ([("pic_1.jpg", "pic_2.jpg", True), ("pic_1.jpg", "pic_3.jpg", False)], "pictures"),
    ],
)
def test_folders_and_names_are_people_only_where_the_labels_agree(
    pairs: list[tuple[str, str, bool]], kind: str
) -> None:
    listed = _listed(pairs)
    vectors = np.eye(len(listed.keys), dtype=np.float32)
    known = KnownEmbeddings(
        source="memory",
        keys=listed.keys,
        identities=[""] * len(listed.keys),
        read=lambda rows: vectors[rows],
        dim=len(vectors),
        origin=None,  # type: ignore[arg-type]
    )
    assert score_pairs(listed, known).units.kind == kind


@pytest.mark.parametrize(("wrong", "kind"), [(1, "identities"), (2, "pictures")])
def test_folders_are_people_where_99_of_100_labels_agree(wrong: int, kind: str) -> None:
    pairs = [(f"p{k}/1", f"p{k + k % 2}/2", (k % 2 == 0) != (k < wrong)) for k in range(100)]
    listed = _listed(pairs)
    rows = (listed.left, listed.right, listed.genuine)
    assert units_of_pairs(listed.keys, [""] * len(listed.keys), *rows).kind == kind


@pytest.mark.parametrize("folder", ["", "batch/"])
def test_missing_pictures_do_not_hide_the_identities_of_the_others(folder: str) -> None:
    """As of a list of pictures with identities, in a folder that says nothing of them."""
    there = [f"{folder}{number}.jpg" for number in range(8)]
    known = KnownEmbeddings(
        source="memory",
        keys=there,
        identities=[f"p{number // 2}" for number in range(8)],
        read=lambda rows: np.eye(8, dtype=np.float32)[rows],
        dim=8,
        origin=None,  # type: ignore[arg-type]
    )
    pairs = [(there[i], there[j], i // 2 == j // 2) for i in range(8) for j in range(i)]
    gone = (there[0], f"{folder}gone.jpg", True)
    units = score_pairs(_listed([*pairs, gone]), known).units
    assert units.kind == "identities"
    assert [bool(same) for same in units.left == units.right] == [p[2] for p in pairs] + [False]


def test_a_keys_person_is_its_identity_or_else_its_folder() -> None:
    known = KnownEmbeddings(
        source="memory",
        keys=["a/1", "b/2", "3"],
        identities=["ann", "", ""],
        read=lambda rows: np.eye(3, dtype=np.float32)[rows],
        dim=3,
        origin=None,  # type: ignore[arg-type]
    )
    listed = _listed([("a/1", "b/2", False), ("3", "gone/4", True)])
    assert score_pairs(listed, known).people == ["ann", "b", "", "gone"]
    templates = Templates(
        pictures=["gone/1", "a/1", "b/2", "gone/2"],
        picture=np.array([0, 1, 2, 3]),
        template=np.array([0, 0, 1, 2]),
        media=np.array([1, 2, 3, 4]),
    )
    listed = _listed([("7", "8", False), ("7", "9", True)], templates=templates)
    assert score_pairs(listed, known).people == ["ann", "b", "gone"]
