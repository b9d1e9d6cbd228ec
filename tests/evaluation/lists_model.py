"""Every list format read a second time, as plainly as its description says, and nothing shared.

The fuzz test holds the library's readers against these. They take whole files as bytes and return
one row a pair, or fail. They need not refuse what the library refuses.
"""

from __future__ import annotations

import csv
import io
import math
import pickle
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

TRUE = ("1", "true", "yes", "same", "genuine")
FALSE = ("0", "false", "no", "different", "impostor")
LABELS = ("label", "genuine", "same", "issame", "is_same", "decision", "match")
NAMES = (
    *("left,right", "path1,path2", "path_1,path_2", "a,b", "img1,img2", "img_1,img_2"),
    *("image1,image2", "image_1,image_2", "file1,file2", "file_1,file_2", "file_x,file_y"),
    *("path_a,path_b", "left_path,right_path"),
)


class UnclearError(Exception):
    """The file is not of the format."""


class Row(NamedTuple):
    """A pair, or a score."""

    line: int
    left: str
    right: str
    genuine: bool
    fold: int | None = None
    score: float | None = None


def read(name: str, files: Mapping[str, bytes]) -> list[Row]:
    """Read files of a format; a single file may have any name."""
    if name.startswith("cfp-"):
        return _cfp(name, files)
    if name == "ijb":
        return _ijb(files)
    if name == "pyeer":
        return _pyeer(files)
    (data,) = files.values()
    if name == "insightface-bin":
        return _packed(data)
    if name in ("csv", "tsv", "scores"):
        return _table(name, data)
    if name == "bob":
        return _bob(data)
    rows = {"lfw": _lfw, "pairs01": _labelled, "01pairs": _labelled}.get(name, _two_lines)(
        name, data
    )
    return with_keys(rows)


def key(name: str) -> str:
    """The name as a key: without `./`, `%` as `%25`, bytes that are not UTF-8 as `%XX`."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return "".join(
        "%25" if c == "%" else f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c
        for c in name
    )


def _lines(data: bytes) -> list[str]:
    if b"\0" in data:
        raise UnclearError
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return re.split("\r\n|\r|\n", text)


def _content(data: bytes, comments: bool = True) -> list[tuple[int, str]]:
    """Lines that say something."""
    stripped = [(number, line.strip(" \t")) for number, line in enumerate(_lines(data), 1)]
    return [
        (number, line)
        for number, line in stripped
        if line and not (comments and re.match("#([ \t]|$)", line))
    ]


def _fields(line: str, count: int) -> list[str]:
    by_tab = [part.strip(" ") for part in line.split("\t")]
    if len(by_tab) == count and "" not in by_tab:
        return by_tab
    return re.split("[ \t]+", line)


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise UnclearError
    return int(text)


def _float(text: str) -> float:
    text = text.strip()
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise UnclearError
    number = float(text)
    if not math.isfinite(number):
        raise UnclearError
    return number


def with_keys(rows: list[Row]) -> list[Row]:
    """Where no name of the list holds a `/`, every `\\` is one."""
    if not any("/" in row.left + row.right for row in rows):
        rows = [
            row._replace(left=row.left.replace("\\", "/"), right=row.right.replace("\\", "/"))
            for row in rows
        ]
    return [row._replace(left=key(row.left), right=key(row.right)) for row in rows]


def _lfw(_: str, data: bytes) -> list[Row]:
    rows, header = [], None
    for number, line in _content(data):
        three, four, short = _fields(line, 3), _fields(line, 4), _fields(line, 2)
        if len(three) == 3 and all(re.fullmatch("[0-9]{1,18}", field) for field in three[1:]):
            left, right = (f"{three[0]}/{three[0]}_{int(n):04d}" for n in three[1:])
            rows.append(Row(number, left, right, True))
        elif len(four) == 4:
            left = f"{four[0]}/{four[0]}_{_number(four[1]):04d}"
            right = f"{four[2]}/{four[2]}_{_number(four[3]):04d}"
            rows.append(Row(number, left, right, False))
        elif len(short) < 3 and header is None and not rows:
            header = [_number(field) for field in short]
        else:
            raise UnclearError
    folds = 10 if header is None else header[0] if len(header) == 2 else None
    size = header[-1] if header else len(rows) // 20
    blocks = [row.genuine for row in rows] == ([True] * size + [False] * size) * (folds or 1)
    if header and not blocks:
        raise UnclearError
    if folds is None or not blocks:
        return rows
    return [row._replace(fold=place // (2 * size)) for place, row in enumerate(rows)]


def _labelled(name: str, data: bytes) -> list[Row]:
    rows = []
    for number, line in _content(data):
        fields = _fields(line, 3)
        label = fields.pop(0 if name == "01pairs" else -1)
        if len(fields) != 2 or label not in ("0", "1"):
            raise UnclearError
        rows.append(Row(number, fields[0], fields[1], label == "1"))
    return rows


def _two_lines(_: str, data: bytes) -> list[Row]:
    content = _content(data)
    rows, tokens = [], []
    if len(content) % 2:
        raise UnclearError
    for (number, first), (_, second) in zip(content[::2], content[1::2], strict=True):
        (left, token), (right, again) = _fields(first, 2), _fields(second, 2)
        if token.lstrip("0") != again.lstrip("0"):
            raise UnclearError
        tokens.append(_number(token))
        rows.append(Row(number, left, right, tokens[-1] > 0))
    genuine = [token for token in tokens if token]
    names = sorted(set(genuine))
    if len(names) < 2 or 2 * len(genuine) != len(tokens):
        return rows
    of_kind = {True: iter(genuine), False: iter(genuine)}
    return [row._replace(fold=names.index(next(of_kind[row.genuine]))) for row in rows]


def _table(name: str, data: bytes) -> list[Row]:
    lines = _lines(data)
    first = next(line for line in lines if line.strip())
    by_tab = name == "tsv" or (name == "scores" and "\t" in first)
    reader = csv.reader(
        (line + "\n" for line in lines), delimiter="\t" if by_tab else ",", strict=True
    )
    table, start = [], 1
    for cells in reader:
        if len(cells) > 1 or "".join(cells).strip():
            table.append((start, cells))
        start = reader.line_num + 1
    header = [cell.strip().lower() for cell in table[0][1]]
    label = next(name for name in LABELS if name in header)
    names = next((n.split(",") for n in NAMES if set(n.split(",")) <= set(header)), [])
    rows = []
    for number, cells in table[1:]:
        found = dict(zip(header, cells, strict=True))
        said = found[label].strip().lower()
        if said not in TRUE + FALSE:
            raise UnclearError
        left, right = (found[n] for n in names) if names else ("", "")
        score = _float(found["score"]) if name == "scores" else None
        fold = _number(found["fold"].strip()) if "fold" in found else None
        rows.append(Row(number, left, right, said in TRUE, fold, score))
    folds = sorted({row.fold for row in rows if row.fold is not None})
    rows = [row if row.fold is None else row._replace(fold=folds.index(row.fold)) for row in rows]
    if name == "scores":
        return rows
    return with_keys([row._replace(left=row.left.strip(), right=row.right.strip()) for row in rows])


def _bob(data: bytes) -> list[Row]:
    rows = []
    for number, line in _content(data):
        claimed, real, probe, score = _fields(line, 4)
        rows.append(Row(number, claimed, probe, claimed == real, score=_float(score)))
    return rows


def _pyeer(files: Mapping[str, bytes]) -> list[Row]:
    return [
        Row(number, "", "", kind == "genuine", score=_float(re.split("[ \t]", line)[-1]))
        for kind in ("genuine", "impostor")
        for number, line in _content(files[f"{kind}.txt"], comments=False)
    ]


def _cfp(name: str, files: Mapping[str, bytes]) -> list[Row]:
    kind = name.removeprefix("cfp-").upper()
    pictures = []
    for letter in kind:
        numbered = {}
        for _, line in _content(files[f"Protocol/Pair_list_{letter}.txt"], comments=False):
            number, path = re.split("[ \t]", line, maxsplit=1)
            parts: list[str] = ["Protocol"]
            for part in path.strip().split("/"):
                if part == "..":
                    parts.pop()
                elif part not in ("", "."):
                    parts.append(part)
            if _number(number) in numbered:
                raise UnclearError
            numbered[_number(number)] = "/".join(parts)
        pictures.append(numbered)
    rows = []
    splits = sorted({file.split("/")[3] for file in files if f"Split/{kind}/" in file})
    for fold, split in enumerate(splits):
        for same in ("same", "diff"):
            for number, line in _content(files[f"Protocol/Split/{kind}/{split}/{same}.txt"]):
                i, j = (_number(text.strip(" \t")) for text in line.split(","))
                rows.append(Row(number, pictures[0][i], pictures[1][j], same == "same", fold))
    return with_keys(rows)


def _ijb(files: Mapping[str, bytes]) -> list[Row]:
    known = {template for _, template, _ in faces(files)}
    rows = []
    for number, line in _content(files["ijbb_template_pair_label.txt"], comments=False):
        left, right, label = (str(_number(text)) for text in re.split("[ \t]+", line))
        if not {left, right} <= known or label not in ("0", "1"):
            raise UnclearError
        rows.append(Row(number, left, right, label == "1"))
    return rows


def faces(files: Mapping[str, bytes]) -> list[tuple[str, str, int]]:
    """Picture, template and media of each face of IJB-B or IJB-C."""
    found = [_fields(line, 3) for _, line in _content(files["ijbb_face_tid_mid.txt"])]
    pictures = with_keys([Row(0, name, name, True) for name, _, _ in found])
    return [
        (picture.left, str(_number(template)), _number(media))
        for picture, (_, template, media) in zip(pictures, found, strict=True)
    ]


class _Plain(pickle._Unpickler):  # type: ignore[name-defined,misc]  # the one written in Python
    # Frames only tell how much to read at once; the unpickler written in C skips them.
    dispatch = pickle._Unpickler.dispatch | {pickle.FRAME[0]: lambda self: self.read(8)}  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != ("_codecs", "encode"):
            raise UnclearError
        return lambda text, *_: text.encode("latin-1")


def _packed(data: bytes) -> list[Row]:
    pictures, labels = _Plain(io.BytesIO(data), encoding="bytes").load()
    if len(pictures) != 2 * len(labels):
        raise UnclearError
    return [
        Row(k + 1, pictures[2 * k], pictures[2 * k + 1], bool(label))
        for k, label in enumerate(labels)
    ]
