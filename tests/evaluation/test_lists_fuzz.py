"""Damaged lists of every format are read for what they say, or refused with one clear line.

Each list is made at random, changed, and read. Changes are of two kinds: those of which the effect
is known (lines repeated, left out, put elsewhere, blank lines, comments, line ends, ...), and plain
damage. What is read after the first must be what was meant; what is read after the second must be
what a second, plain reader finds in the damaged files (`lists_model.py`): no pair made up, none
dropped. `FACEIDX_FUZZ_LISTS` sets the number of changed lists, over all formats.
"""

from __future__ import annotations

import os
import pickle
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import PairList, ScoreList, lines, read_list
from tests.evaluation import lists_model
from tests.evaluation.lists_model import Row

_CHANGED = int(os.environ.get("FACEIDX_FUZZ_LISTS", "5000"))
_INSERTS = (
    *(b" ", b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b'"', b",", b"#", b"# ", b"\x00", b"\xe9"),
    *(b"\xef\xbb\xbf", b"\xc2\xa0", b"\xe2\x80\xa8", b"\x0b", b"%", b"\\", b"./", b"../", b"0"),
    *(b"1", b"2", b"-1", b"+1", b"1_0", b"nan", b"1e999", b"999999999999999999999", b"yes"),
    *(b"label", b"score", b"a b 1\n", b"1,1\n", b"\xef\xbc\x91"),
)
_PLAIN = ("Ann", "Bo_B", "Cy.D", "é", "x%41y", "#a", "d\udce9")
_PATHS = (*(f"{who}/{n}.jpg" for who in _PLAIN for n in (1, 2)), "./Ann/1.jpg", "a\\b/c.jpg")
_WINDOWS = tuple(f"{who}\\{n}.jpg" for who in ("Ann", "Bo") for n in (1, 2, 3))
_SPACED = (*_PATHS, "Ann Lee/1.jpg", "Bo  B/2.jpg")


class _Unit(NamedTuple):
    """Lines that stand or fall together, and the pair that they say."""

    text: str
    row: Row | None = None


class _Made(NamedTuple):
    """A list made at random."""

    format: str
    files: dict[str, list[_Unit]]
    """In the order in which their pairs come."""
    free: bool = True
    """Pairs may be repeated, left out and put elsewhere."""
    comments: bool = True


def _row(left: str, right: str, genuine: bool, score: float | None = None) -> Row:
    return Row(0, left, right, genuine, score=score)


def _pairs(rng: random.Random, names: tuple[str, ...]) -> Iterator[tuple[str, str, bool]]:
    for _ in range(rng.randint(1, 12)):
        yield rng.choice(names), rng.choice(names), rng.random() < 0.5


def _one_file(name: str, units: list[_Unit], **more: bool) -> _Made:
    return _Made(name, {"list.txt": units}, **more)


def _lfw(rng: random.Random) -> _Made:
    def unit(genuine: bool) -> _Unit:
        who, other = rng.sample(_PLAIN, 2)
        a, b = rng.randint(0, 12), rng.randint(0, 10**5)
        if genuine:
            left, right = f"{who}/{who}_{a:04d}", f"{who}/{who}_{b:04d}"
            return _Unit(f"{who}\t{a}\t{b}", _row(left, right, True))
        left, right = f"{who}/{who}_{a:04d}", f"{other}/{other}_{b:04d}"
        return _Unit(f"{who}\t{a}\t{other}\t{b}", _row(left, right, False))

    folds, size = rng.randint(1, 3), rng.randint(1, 3)
    header = rng.choice((f"{folds}\t{size}", f"{size}", ""))
    blocks = folds if "\t" in header else rng.randint(1, 3) if not header else 1
    units = [unit(k < size) for _ in range(blocks) for k in range(2 * size)]
    return _one_file("lfw", [_Unit(header), *units] if header else units, free=not header)


def _labelled(rng: random.Random, name: str) -> _Made:
    separator = rng.choice((" ", "\t", "  \t"))
    names = rng.choice((_PATHS, _WINDOWS, _SPACED))
    words = rng.choice((("0", "1"), ("-1", "1"), ("False", "True"), ("nontarget", "target")))
    units = []
    if separator == " " and rng.random() < 0.2:
        header = ["img1", "img2", "label"] if name == "pairs01" else ["label", "p1", "p2"]
        units.append(_Unit(" ".join(header)))
    for left, right, genuine in _pairs(rng, names):
        fields = (left, right, words[genuine])
        fields = fields if name == "pairs01" else (fields[2], *fields[:2])
        units.append(_Unit(separator.join(fields), _row(left, right, genuine)))
    return _one_file(name, units)


def _calfw(rng: random.Random) -> _Made:
    units = []
    for left, right, genuine in _pairs(rng, _PATHS):
        token = rng.randint(1, 10) if genuine else 0
        units.append(_Unit(f"{left} {token}\n{right} {token}", _row(left, right, genuine)))
    return _one_file(rng.choice(("calfw", "cplfw", "agedb")), units)


def _table(rng: random.Random, name: str) -> _Made:
    delimiter = {"csv": rng.choice(",,;"), "tsv": "\t"}.get(name) or rng.choice(",\t")
    label = rng.choice(lists_model.LABELS + lists_model.PERHAPS_LABELS)
    columns = [*rng.choice(lists_model.NAMES).split(","), label]
    extra = rng.choice(("", "fold", "note"))
    scored, named = name == "scores", name != "scores" or rng.random() < 0.5
    order = list(range(3 + (extra != "") + scored))
    rng.shuffle(order)
    columns += [column for column in (extra, "score" if scored else "") if column]

    def line(cells: list[str]) -> str:
        cells = [cells[place] for place in order if named or place > 1]
        quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
        return delimiter.join(
            q if delimiter in cell or '"' in cell or rng.random() < 0.2 else cell
            for cell, q in zip(cells, quoted, strict=True)
        )

    units = [_Unit(line([rng.choice((c, c.upper(), f" {c}")) for c in columns]))]
    if name == "csv" and delimiter == "," and order in ([0, 1, 2], [2, 0, 1]):
        del units[0]  # a table of three columns needs no header
    names = (*_SPACED, "a,b/1.jpg", 'q"t/2.jpg', "t\tb/1.jpg")
    for left, right, genuine in _pairs(rng, names):
        score = round(rng.uniform(-2, 2), rng.randint(0, 9))
        said = rng.choice(lists_model.TRUE if genuine else lists_model.FALSE).title()
        fold = [f"{rng.randint(0, 3)}"] if extra else []
        cells = [left, right, said, *fold, *([f"{score}"] if scored else [])]
        shown = (left.strip(), right.strip()) if named else ("", "")
        units.append(_Unit(line(cells), _row(*shown, genuine, score if scored else None)))
    return _one_file(name, units, comments=False)


def _bob(rng: random.Random) -> _Made:
    units = []
    for left, right, genuine in _pairs(rng, _PATHS):
        score = rng.uniform(-1, 1) * 10 ** rng.randint(-9, 9)
        real = left if genuine else f"{left}x"
        row = _row(left, right, genuine, score)
        units.append(_Unit(f"{left} {real} {right} {score!r}", row))
    return _one_file("bob", units)


def _pyeer(rng: random.Random) -> _Made:
    files = {}
    for kind in ("genuine", "impostor"):
        scores = [rng.uniform(-1, 1) for _ in range(rng.randint(1, 6))]
        before = rng.choice(("", "a b ", "7\t"))
        files[f"{kind}.txt"] = [
            _Unit(f"{before}{score!r}", _row("", "", kind == "genuine", score)) for score in scores
        ]
    return _Made("pyeer", files, comments=False)


def _cfp(rng: random.Random) -> _Made:
    kind = rng.choice(("FF", "FP"))
    files: dict[str, list[_Unit]] = {}
    for fold in range(rng.randint(1, 3)):
        for same in ("same", "diff"):
            units = files[f"Protocol/Split/{kind}/{fold + 1:02d}/{same}.txt"] = []
            for _ in range(rng.randint(1, 4)):
                i, j = rng.randint(1, 4), rng.randint(1, 4)
                left, right = f"Data/F/{i}.jpg", f"Data/{kind[1]}/{j}.jpg"
                units.append(_Unit(f"{i},{j}", _row(left, right, same == "same")))
    for letter in "FP":
        pictures = [_Unit(f"{k} ../Data/{letter}/{k}.jpg") for k in range(1, 5)]
        files[f"Protocol/Pair_list_{letter}.txt"] = pictures
    return _Made(f"cfp-{kind.lower()}", files)


def _ijb(rng: random.Random) -> _Made:
    pairs = []
    for left, right, genuine in _pairs(rng, ("1", "2", "33")):
        pairs.append(_Unit(f"{left} {right} {int(genuine)}", _row(left, right, genuine)))
    faces = [_Unit(f"{k}.jpg {t} {k % 3}") for k, t in enumerate((1, 2, 33, 1, 2))]
    files = {"ijbb_template_pair_label.txt": pairs, "ijbb_face_tid_mid.txt": faces}
    return _Made("ijb", files, comments=False)


_MAKERS: dict[str, Callable[[random.Random], _Made]] = {
    "lfw": _lfw,
    "pairs01": lambda rng: _labelled(rng, "pairs01"),
    "01pairs": lambda rng: _labelled(rng, "01pairs"),
    "calfw": _calfw,
    "csv": lambda rng: _table(rng, "csv"),
    "tsv": lambda rng: _table(rng, "tsv"),
    "scores": lambda rng: _table(rng, "scores"),
    "bob": _bob,
    "pyeer": _pyeer,
    "cfp": _cfp,
    "ijb": _ijb,
}
_ROUNDS = -(-_CHANGED // (len(_MAKERS) + 1))


# --- changes of known effect ---------------------------------------------------------------------


def _rearranged(made: _Made, rng: random.Random) -> _Made:
    """Repeat, leave out and move pairs; put blank lines, comments and blanks between them."""
    files = {name: list(units) for name, units in made.files.items()}
    with_pairs = [units for units in files.values() if any(unit.row for unit in units)]
    for _ in range(rng.randint(0, 4)):
        units = rng.choice(with_pairs)
        first = 0 if units and units[0].row else 1  # a header stays where it is
        if made.free and len(units) > first + 1:
            one, other = rng.randrange(first, len(units)), rng.randrange(first, len(units))
            action = rng.randrange(3)
            if action == 0:
                units.insert(one, units[other])
            elif action == 1:
                del units[one]
            else:
                units[one], units[other] = units[other], units[one]
        says_nothing = ("", " ") if made.format in ("csv", "tsv", "scores") else ("", " ", "\t ")
        if made.comments:
            says_nothing = (*says_nothing, "#", "# a b c d 1", "#\tx", "  # 1,1")
        if rng.random() < 0.5:
            units.insert(rng.randint(first, len(units)), _Unit(rng.choice(says_nothing)))
    return made._replace(files=files)


def _written(made: _Made, rng: random.Random) -> dict[str, bytes]:
    """The files, with line ends of one kind or mixed, with or without mark and last line end."""
    files = {}
    for name, units in made.files.items():
        ends = rng.choice((("\n",), ("\r\n",), ("\r",), ("\n", "\r\n", "\r")))
        text = rng.choice(("", "", "\ufeff"))
        for line in "\n".join(unit.text for unit in units).split("\n"):
            end = rng.choice(ends)
            # CR of one line and LF of the next, which is empty, would be one end.
            text += line + ("\r" if text.endswith("\r") and not line and end == "\n" else end)
        text = text.rstrip("\r\n") if rng.random() < 0.2 else text
        files[name] = text.encode("utf-8", "surrogateescape")
    return files


def _meant(made: _Made) -> list[Row]:
    """The pairs that the units say, each with its line; folds are left to the other test."""
    rows = []
    for units in made.files.values():
        line = 1
        for unit in units:
            if unit.row is not None:
                rows.append(unit.row._replace(line=line))
            line += unit.text.count("\n") + 1
    return rows if made.format in ("scores", "bob", "pyeer") else lists_model.with_keys(rows)


def _is_hollow(made: _Made) -> bool:
    """Whether a file of pairs has none left."""
    return any(
        not any(unit.row for unit in units) and "Pair_list" not in name and "face" not in name
        for name, units in made.files.items()
    )


# --- damage --------------------------------------------------------------------------------------


def _damaged(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        cut = data.splitlines(keepends=True) or [b""]
        at, line = rng.randrange(len(data) + 1), rng.randrange(len(cut))
        action = rng.randrange(9)
        if action == 0:
            data = data[:at] + rng.choice(_INSERTS) + data[at:]
        elif action == 1:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif action == 2:
            data = data[:at] + data[at + rng.randint(1, 9) :]
        elif action == 3:
            data = data[:at]
        elif action == 4:
            data = b"".join(cut[:line] + cut[line + 1 :])
        elif action == 5:
            data = b"".join([*cut[:line], cut[line], *cut[line:]])
        elif action == 6:
            rng.shuffle(cut)
            data = b"".join(cut)
        elif action == 7:
            words = re.split(rb"([ \t,]+)", data)
            words[rng.randrange(len(words))] = rng.choice(_INSERTS)
            data = b"".join(words)
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    return data


# --- reading -------------------------------------------------------------------------------------


def _put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root if len(files) > 1 else root / next(iter(files))


def _read(path: Path, name: str, rng: random.Random) -> PairList | ScoreList | None:
    """Read a list; None where it is refused, which takes one line that names the file."""
    with pytest.MonkeyPatch.context() as patch:
        # Files are read a block at a time: blocks of a few lines meet all that can happen there.
        patch.setattr(lines, "_BLOCK_CHARACTERS", rng.choice((1, 20, 90, 1 << 17)))
        try:
            return read_list(path, format=name)
        except InputError as error:
            assert str(path) in str(error)
            assert str(error).replace("\t", " ").isprintable()
            return None


def _rows(found: PairList | ScoreList) -> list[Row]:
    if isinstance(found, PairList):
        names: list[str] | list[bytes] = found.pictures or found.keys
        assert len(set(found.keys)) == len(found.keys) == len(names)
        left, right = ([names[row] for row in side] for side in (found.left, found.right))
    else:
        assert found.scores.shape == found.genuine.shape
        nothing = [""] * len(found.genuine)
        left, right = list(found.left or nothing), list(found.right or nothing)
    folds = [None] * len(left) if found.folds is None else found.folds.tolist()
    scores = found.scores.tolist() if isinstance(found, ScoreList) else [None] * len(left)
    columns = (found.lines.tolist(), left, right, found.genuine.tolist(), folds, scores)
    return [Row(*row) for row in zip(*columns, strict=True)]


def _faces(found: PairList) -> list[tuple[str, str, int]]:
    faces = found.templates
    assert faces is not None
    columns = (faces.picture.tolist(), faces.template.tolist(), faces.media.tolist())
    return [(faces.pictures[p], found.keys[t], m) for p, t, m in zip(*columns, strict=True)]


def _require_same(found: PairList | ScoreList, files: dict[str, bytes]) -> None:
    assert _rows(found) == lists_model.read(found.format, files)
    if isinstance(found, PairList) and found.format == "ijb":
        assert _faces(found) == lists_model.faces(files)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("maker", _MAKERS)
def test_a_list_changed_with_known_effect_gives_the_pairs_that_are_meant(
    tmp_path: Path, maker: str
) -> None:
    rng = random.Random(maker)
    recognised = 0
    for number in range(_ROUNDS // 3):
        made = _rearranged(_MAKERS[maker](rng), rng)
        files, meant = _written(made, rng), _meant(made)
        path = _put(tmp_path / f"{number}", files)
        found = _read(path, made.format, rng)
        if found is None:
            assert _is_hollow(made)
            continue
        assert [row._replace(fold=None) for row in _rows(found)] == meant
        _require_same(found, files)
        again = _read(path, "auto", rng)  # a short list may be of two formats at once
        if again is not None:
            assert _rows(again) == _rows(found)
            recognised += 1
    assert recognised > _ROUNDS / 5 or _CHANGED < 1000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("maker", _MAKERS)
def test_a_damaged_list_is_read_as_a_plain_reader_reads_it_or_refused(
    tmp_path: Path, maker: str
) -> None:
    rng = random.Random(f"damaged {maker}")
    read = 0
    for number in range(_ROUNDS - _ROUNDS // 3):
        made = _MAKERS[maker](rng)
        files = _written(made, rng)
        target = next(iter(files)) if rng.random() < 0.5 else rng.choice(list(files))
        files[target] = _damaged(files[target], rng)
        path = _put(tmp_path / f"{number}", files)
        found = _read(path, rng.choice(("auto", made.format)), rng)
        if found is not None:
            _require_same(found, files)
            read += 1
    assert _ROUNDS / 20 < read < _ROUNDS * 0.6 or _CHANGED < 1000


def test_a_damaged_packed_set_is_read_as_a_plain_unpickler_reads_it_or_refused(
    tmp_path: Path,
) -> None:
    rng = random.Random("packed")
    read = 0
    for number in range(_ROUNDS):
        labels = [rng.random() < 0.5 for _ in range(rng.randint(1, 6))]
        pictures = [b"\xff\xd8" + rng.randbytes(rng.randint(1, 300)) for _ in 2 * labels]
        content = rng.choice(((pictures, labels), [tuple(pictures), tuple(labels)]))
        data = pickle.dumps(content, protocol=rng.randint(2, 5))
        files = {"set.bin": _damaged(data, rng) if number % 4 else data}
        found = _read(_put(tmp_path / f"{number}", files), "auto", rng)
        assert found is not None or number % 4
        if found is not None:
            _require_same(found, files)
            read += 1
    assert _ROUNDS / 4 < read < _ROUNDS or _CHANGED < 1000
