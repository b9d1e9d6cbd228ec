"""Score files of other programs: bob's four columns and pyeer's two files."""

from __future__ import annotations

import operator
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.gathered import Scores
from faceidx.evaluation.lists.lines import (
    ListError,
    Rows,
    parse_block,
    plain_columns,
    read_blocks,
    read_lines,
    shown,
    split,
)
from faceidx.evaluation.lists.pairs import ScoreList
from faceidx.evaluation.lists.table import all_finite, finite
from faceidx.images.keys import is_picture_name


def read_bob(path: Path) -> ScoreList:
    """Read lines `claimed_id real_id probe_label score` (bob.bio's four-column score file).

    A comparison is genuine where both identities are the same. The names are those of the claimed
    identity's model and of the probe.

    Raises:
        ListError: a line is not understood, a score is no finite number, or labels stand in the
            place of the probes or names of pictures in that of the identities.
    """
    scores, people = Scores(), Rows()
    sides = array("i"), array("i")
    wanted = "line `claimed_id real_id probe_label score`"
    for first, block in read_blocks(path):
        columns = plain_columns(block, 4)
        if columns is not None:
            lines = range(first, first + len(block))
            claimed, real, probes, texts = columns
            genuine = map(operator.eq, claimed, real)
            scores.extend(lines, all_finite(path, lines, texts), genuine, (claimed, probes))
            for side, names in zip(sides, (claimed, real), strict=True):
                side.extend(map(people.__getitem__, names))
            continue
        for line, (name, real_name, probe, text) in parse_block(path, first, block, _four, wanted):
            score = finite(path, line, text)
            scores.extend([line], [score], [name == real_name], ([name], [probe]))
            for side, person in zip(sides, (name, real_name), strict=True):
                side.append(people[person])
    found = scores.finish(path, "bob")
    assert found.right is not None
    if {"0", "1"} >= set(found.right):
        raise ListError(
            path,
            int(found.lines[0]),
            "the third column holds 0 and 1 alone, so these are no names of probes; where they "
            "are labels, write `left,right,label,score` above a table of commas",
            understood=True,
        )
    left, right = (np.frombuffer(side, dtype=np.int32) for side in sides)
    names = list(people)
    are_labels = bool(np.isin(found.scores, (0, 1)).all())
    if are_labels and all(is_picture_name(names[row]) for row in np.unique(right).tolist()):
        # As of `Ann Lee/1.jpg Bo/2.jpg 1`, a pair with a blank in one name and its label.
        raise ListError(
            path,
            int(found.lines[0]),
            "the second column holds names of pictures and the last 0 and 1 alone, so these are no "
            "identities and scores; where names hold blanks, set the fields apart by tabs",
            understood=True,
        )
    return replace(found, people=(left, right))


def _four(line: str) -> list[str] | None:
    return split(line, 4)


def is_pyeer(folder: Path) -> bool:
    """Whether a folder has a file of genuine and a file of impostor scores."""
    return all(_score_files(folder, kind) for kind in ("genuine", "impostor"))


def read_pyeer(folder: Path) -> ScoreList:
    """Read pyeer's two files: one score a line, in the line's last column.

    One file of the folder has `genuine` in its name, one `impostor`. `lines` count within each
    file, genuine scores first. pyeer's histograms (how many impostors had the score 0, 1, ...)
    look like whole scores, so impostor files of a single column of whole numbers are refused.

    Raises:
        InputError: a file is missing, empty, ambiguous, or holds what is no finite number.
    """
    genuine_lines, genuine = _last_column(_one_file(folder, "genuine"))
    impostor_file = _one_file(folder, "impostor")
    impostor_lines, impostor = _last_column(impostor_file)
    if all(text.isdigit() for _, text in read_lines(impostor_file)):
        raise InputError(
            f"{impostor_file}:1: whole numbers alone may be scores or a histogram of scores; "
            "write scores with a decimal point, histograms are not read"
        )
    return ScoreList(
        path=folder,
        format="pyeer",
        scores=np.concatenate([genuine, impostor]),
        genuine=np.arange(len(genuine) + len(impostor)) < len(genuine),
        lines=np.concatenate([genuine_lines, impostor_lines]),
    )


def _last_column(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return lines (n,) int32 and scores (n,) float64."""
    lines, scores = array("i"), array("d")
    for line, text in read_lines(path):
        lines.append(line)
        scores.append(finite(path, line, text.replace("\t", " ").rsplit(" ", 1)[-1]))
    if not lines:
        raise InputError(f"{path}: holds no scores; give at least one")
    return np.frombuffer(lines, dtype=np.int32), np.frombuffer(scores, dtype=np.float64)


def _score_files(folder: Path, kind: str) -> list[Path]:
    def named(file: Path) -> bool:
        return kind in file.name.lower().replace("imposter", "impostor")

    return sorted(file for file in folder.iterdir() if named(file) and file.is_file())


def _one_file(folder: Path, kind: str) -> Path:
    files = _score_files(folder, kind)
    if len(files) != 1:
        found = " and ".join(shown(file.name) for file in files[:2]) or "none"
        raise InputError(
            f"{folder}: one file with `{kind}` in its name should hold the {kind} scores, but "
            f"there is {found}; leave one"
        )
    return files[0]
