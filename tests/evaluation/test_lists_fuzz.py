"""Seeded damage to samples of every format: a list that agrees with a naive count, or an error.

`FACEIDX_FUZZ_LISTS` sets the number of damaged files, over all samples.
"""

from __future__ import annotations

import csv
import os
import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import PairList, ScoreList, read_list

_MUTATIONS = int(os.environ.get("FACEIDX_FUZZ_LISTS", "1000"))
_PEOPLE = ("Ann", "Bo_B", "Cy", "Di", "Ed")
_INSERTS = (
    *(b" ", b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b'"', b",", b"#", b"# ", b"\x00", b"\xe9"),
    *(b"\xef\xbb\xbf", b"\xc2\xa0", b"\xe2\x80\xa8", b"\x0b", b"%", b"\\", b"./", b"0", b"1"),
    *(b"2", b"-1", b"nan", b"1e999", b"999999999999999999999", b"yes", b"label", b"a b 1\n"),
)


def _samples() -> dict[str, dict[str, bytes]]:
    """Files of each sample; the first is the one that gets damaged most."""
    rng = random.Random(1)
    lfw = "2 3\n"
    for _ in range(2):
        lfw += "".join(f"{rng.choice(_PEOPLE)}\t{k + 1}\t{k + 2}\n" for k in range(3))
        lfw += "".join(f"Ann\t{k + 1}\t{rng.choice(_PEOPLE[1:])}\t{k + 2}\n" for k in range(3))
    names = [f"{rng.choice(_PEOPLE)}/{k}.jpg" for k in range(24)]
    rows = [(names[k], names[k + 1], k // 2 % 2) for k in range(0, 24, 2)]
    table = "left,right,label,fold\n" + "".join(f"{a},{b},{g},{g + 1}\n" for a, b, g in rows)
    scores = "left,right,label,score\n" + "".join(f"{a},{b},{g},{g - 0.5}\n" for a, b, g in rows)
    pictures = [b"\xff\xd8 picture %d" % k for k in range(8)]
    text = {
        "lfw": lfw,
        "headerless": lfw.partition("\n")[2],
        "pairs01": "".join(f"{a} {b} {g}\n" for a, b, g in rows),
        "01pairs": "".join(f"{g} {a} {b}\n" for a, b, g in rows),
        "calfw": "".join(f"{a} {g * 2}\n{b} {g * 2}\n" for a, b, g in rows),
        "csv": table,
        "tsv": table.replace(",", "\t"),
        "scores": scores,
        "bob": "".join(f"{k % 3} {k % 2} {a} {k / 7}\n" for k, (a, _, _) in enumerate(rows)),
    }
    pictured = "".join(f"{k} ../Data/Images/{k:03d}/f/01.jpg\n" for k in range(1, 5))
    cfp = {
        **{f"Protocol/Split/FP/01/{kind}.txt": b"1,1\n2,3\n4,4\n" for kind in ("same", "diff")},
        **{f"Protocol/Split/FP/02/{kind}.txt": b"2,1\n2,4\n" for kind in ("same", "diff")},
        **{f"Protocol/Pair_list_{kind}.txt": pictured.encode() for kind in "FP"},
    }
    ijb = {
        "ijbb_template_pair_label.txt": b"1 2 0\n2 3 1\n3 3 1\n1 1 1\n" * 3,
        "ijbb_face_tid_mid.txt": b"1.jpg 1 1\n2.jpg 2 1\n3.jpg 3 2\n4.jpg 1 2\n",
    }
    pyeer = {"impostor.txt": b"0.1\na b 0.25\n-3\n" * 4, "genuine.txt": b"0.75\n0.5\n"}
    return {
        **{name: {"list.txt": content.encode()} for name, content in text.items()},
        **{f"bin{p}": {"set.bin": pickle.dumps((pictures, [True, False] * 2), p)} for p in (2, 4)},
        "cfp": cfp,
        "ijb": ijb,
        "pyeer": pyeer,
    }


def _damaged(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        lines = data.splitlines(keepends=True) or [b""]
        at, line = rng.randrange(len(data) + 1), rng.randrange(len(lines))
        action = rng.randrange(8)
        if action == 0:
            data = data[:at] + rng.choice(_INSERTS) + data[at:]
        elif action == 1:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif action == 2:
            data = data[:at] + data[at + rng.randint(1, 9) :]
        elif action == 3:
            data = data[:at]
        elif action == 4:
            data = b"".join(lines[:line] + lines[line + 1 :])
        elif action == 5:
            data = b"".join([*lines[:line], lines[line], *lines[line:]])
        elif action == 6:
            rng.shuffle(lines)
            data = b"".join(lines)
        else:
            words = re.split(rb"([ \t,]+)", data)
            words[rng.randrange(len(words))] = rng.choice(_INSERTS)
            data = b"".join(words)
    return data


def _lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return re.split(r"\r\n|\r|\n", text)


def _content(path: Path) -> list[str]:
    """Lines that say something, comments left out."""
    lines = [line.strip(" \t") for line in _lines(path)]
    return [line for line in lines if line and line != "#" and line[:2] not in ("# ", "#\t")]


def _naive_count(root: Path, path: Path, name: str) -> int | None:
    """Pairs in a list, counted without the library; None for a pickle, which is not loaded here."""
    if name in ("csv", "tsv", "scores"):
        first = next(line for line in _lines(path) if line.strip())
        delimiter = "\t" if "\t" in first else ","
        rows = csv.reader((line + "\n" for line in _lines(path)), delimiter=delimiter)
        return sum(len(row) > 1 for row in rows) - 1
    if name == "cfp-fp":
        return sum(len(_content(file)) for file in root.glob("Protocol/Split/FP/*/*.txt"))
    if name == "ijb":
        return len([line for line in _lines(root / "ijbb_template_pair_label.txt") if line.strip()])
    if name == "pyeer":
        return sum(bool(line.strip(" \t")) for file in root.iterdir() for line in _lines(file))
    if name == "insightface-bin":
        return None
    content = _content(path)
    if name == "lfw":
        return len(content) - (len(content[0].split()) < 3)
    return len(content) // 2 if name in ("calfw", "cplfw", "agedb") else len(content)


def _check(found: PairList | ScoreList, root: Path, path: Path) -> None:
    count = len(found.genuine)
    naive = _naive_count(root, path, found.format)
    assert count == (count if naive is None else naive) > 0
    assert found.genuine.dtype == bool and found.lines.shape == (count,) and found.lines.min() >= 1
    assert found.folds is None or (found.folds.shape == (count,) and found.folds.min() >= 0)
    if isinstance(found, ScoreList):
        assert found.scores.shape == (count,) and np.isfinite(found.scores).all()
        return
    assert len(set(found.keys)) == len(found.keys) and all(found.keys)
    for rows in (found.left, found.right):
        assert rows.shape == (count,) and rows.min() >= 0 and rows.max() < len(found.keys)
    if found.pictures is not None:
        assert len(found.pictures) == 2 * count == len(found.keys)
    if found.format in ("pairs01", "01pairs"):
        _check_names(found, path)


def _check_names(found: PairList, path: Path) -> None:
    """The names of every pair stand in the line that the list gives for it."""
    lines = _lines(path)
    for k, line in enumerate(found.lines):
        for row in (found.left[k], found.right[k]):
            key = found.keys[row]
            if "%" not in key and "/" in key and "\\" not in lines[line - 1]:
                assert key in lines[line - 1]


@pytest.mark.parametrize("sample", sorted(_samples()))
def test_damaged_lists_are_read_consistently_or_refused(tmp_path: Path, sample: str) -> None:
    files = _samples()[sample]
    rng = random.Random(sample)
    whole = read = 0
    format_of = {"headerless": "lfw", "bin2": "insightface-bin", "bin4": "insightface-bin"}
    for round_ in range(-1, -(-_MUTATIONS // len(_samples()))):
        target = next(iter(files)) if rng.random() < 0.5 else rng.choice(list(files))
        for name, data in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_damaged(data, rng) if name == target and round_ >= 0 else data)
        path = tmp_path if len(files) > 1 else tmp_path / next(iter(files))
        forced = rng.random() < 0.3 and sample != "cfp"
        try:
            found = read_list(path, format=format_of.get(sample, sample) if forced else "auto")
        except InputError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error)
            assert round_ >= 0, error  # the undamaged sample is understood
            continue
        _check(found, tmp_path, tmp_path / next(iter(files)))
        whole += round_ < 0
        read += round_ >= 0
    assert whole == 1 and (read or _MUTATIONS < 500)
