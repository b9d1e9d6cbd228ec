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

TRUE = (
    *("1", "true", "t", "yes", "y", "same", "same person", "genuine", "match", "matched", "mated"),
    *("positive", "pos", "target", "1.0", "+1"),
)
FALSE = (
    *("0", "false", "f", "no", "n", "different", "diff", "different person", "not same", "neg"),
    *("different-people", "impostor", "imposter", "non-match", "no match", "not_match", "mismatch"),
    *("unmatched", "non-mated", "unmated", "negative", "nontarget", "0.0"),
)
LABELS = (
    *("label", "genuine", "same", "issame", "is_same", "decision", "match", "labels", "pair_label"),
    *("is_genuine", "is match", "matched", "mated", "same_person", "same_subject", "isSameID"),
    *("same_identity", "same-face"),
)
PERHAPS_LABELS = (
    *("target", "y", "y_true", "gt", "ground_truth", "truth", "actual", "positive", "same_diff"),
    *("class", "kind", "type", "pair_type"),
)
NAMES = (
    *("left,right", "path1,path2", "path_1,path_2", "a,b", "img1,img2", "img_1,img_2"),
    *("image1,image2", "image_1,image_2", "file1,file2", "file_1,file_2", "file_x,file_y"),
    *("path_a,path_b", "left_path,right_path", "p1,p2", "imageA,imageB", "img1_path,img2_path"),
    *("filename1,filename2", "first,second", "image-left,image-right", "photo_1,photo_2"),
    *("Image 1,Image 2", "face_id_1,face_id_2", "reference,probe", "enroll,test", "x1,x2"),
)
_SIDES = (
    *("1,2", "0,1", "a,b", "x,y", "l,r", "i,j", "left,right", "first,second", "one,two"),
    *("reference,probe", "ref,probe", "gallery,probe", "enrolled,probe", "gallery,query"),
    *("reference,query", "reference,test", "enroll,test", "enrol,test", "enrollment,test"),
    "enroll,verify",
)
_PICTURE_WORDS = {
    *("image", "images", "img", "imgs", "im", "picture", "pictures", "pic", "pics", "photo"),
    *("photos", "face", "faces", "frame", "frames", "file", "files", "filename", "filenames"),
    *("fname", "fn", "path", "paths", "url", "crop", "crops"),
}
_OTHER_WORDS = {
    *("name", "names", "person", "subject", "user", "full", "relative", "rel", "absolute", "abs"),
    *("local", "aligned", "cropped", "input"),
}
_LONE_WORDS = {
    *("p", "f", "x", "s", "id", "ids", "key", "keys", "sample", "samples", "item", "items"),
    *("utt", "utterance", "wav", "audio", "clip", "video", "template"),
}
_ENDING = r"\.(jpg|jpeg|jpe|png|webp|bmp|tif|tiff|pgm|ppm|pnm|gif|heic|heif)(?=[ \t]|$)"


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


def said(text: str) -> bool | None:
    """What a label says."""
    text = text.strip().lower()
    if re.fullmatch(r"[+-]?[01](\.0*)?", text):
        return "1" in text and "-" not in text
    for words, genuine in ((TRUE, True), (FALSE, False)):
        if re.sub("[ _-]", "", text) in (re.sub("[ _-]", "", word) for word in words):
            return genuine
    return None


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _can_be_cut(text: str, words: set[str], wanted: set[str]) -> bool:
    """Whether a text is made of words, one of the wanted ones at least."""
    ways: list[list[bool]] = [[False]] + [[] for _ in text]
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            word = text[start:end]
            if word in words:
                ways[end] += [way or word in wanted for way in ways[start]]
        for end in range(start, len(text) + 1):
            ways[end] = sorted(set(ways[end]))
    return True in ways[-1]


def _named(header: list[str]) -> list[tuple[int, int]]:
    """Couples of columns that are named like pictures; those that are surely so, if any."""
    sure, perhaps = [], []
    cells = [_letters(cell) for cell in header]
    every = _PICTURE_WORDS | _OTHER_WORDS | _LONE_WORDS
    for i, one in enumerate(cells):
        for j, other in enumerate(cells):
            for sides in _SIDES:
                a, b = sides.split(",")
                rests = [
                    {
                        word[:k] + word[k + len(m) :]
                        for k in range(len(word))
                        if word[k:].startswith(m)
                    }
                    for word, m in ((one, a), (other, b))
                ]
                for rest in rests[0] & rests[1]:
                    if len(one) > 40 or len(other) > 40 or i == j:
                        continue
                    if rest == "":
                        (sure if len(a) > 1 or a == "a" else perhaps).append((i, j))
                    elif _can_be_cut(rest, _PICTURE_WORDS | _OTHER_WORDS, _PICTURE_WORDS):
                        sure.append((i, j))
                    elif _can_be_cut(rest, every, every):
                        perhaps.append((i, j))
    return sure or perhaps


def _labelled_column(header: list[str], names: list[tuple[int, int]]) -> int | None:
    taken = {place for couple in names for place in couple}
    for words in (LABELS, PERHAPS_LABELS):
        known = {_letters(word).removeprefix("is") for word in words}
        for place, cell in enumerate(header):
            if place not in taken and _letters(cell).removeprefix("is") in known:
                return place
    return None


def _split_at_endings(text: str) -> list[str]:
    """Cut a text behind every ending of a picture that a blank or the end follows."""
    parts, start = [], 0
    for found in re.finditer(_ENDING, text, re.I):
        parts.append(text[start : found.end()].strip(" \t"))
        start = found.end()
    return [*parts, text[start:].strip(" \t")]


def _lfw(_: str, data: bytes) -> list[Row]:
    rows, header = [], None
    for place, (number, line) in enumerate(_content(data)):
        if "," in line:
            if place == 0 and line.lower().startswith("name,imagenum"):
                continue
            cells = [cell.strip(" \t") for cell in line.rstrip(", \t").split(",")]
            if len(cells) < 3 or "" in cells:
                raise UnclearError
            line = "\t".join(cells)
        three, four, short = _fields(line, 3), _fields(line, 4), _fields(line, 2)
        if len(three) == 3 and all(re.fullmatch("[0-9]{1,18}", field) for field in three[1:]):
            left, right = (f"{three[0]}/{three[0]}_{int(n):04d}" for n in three[1:])
            rows.append(Row(number, left, right, True))
        elif len(four) == 4 and all(re.fullmatch("[0-9]{1,18}", field) for field in four[1::2]):
            left = f"{four[0]}/{four[0]}_{_number(four[1]):04d}"
            right = f"{four[2]}/{four[2]}_{_number(four[3]):04d}"
            rows.append(Row(number, left, right, False))
        elif len(words := re.split("[ \t]+", line)) > 3:
            *_, last = words
            (k,) = (k for k in range(1, len(words) - 1) if re.fullmatch("[0-9]{1,18}", words[k]))
            one, two = " ".join(words[:k]), " ".join(words[k + 1 : -1])
            left = f"{one}/{one}_{_number(words[k]):04d}"
            right = f"{two or one}/{two or one}_{_number(last):04d}"
            rows.append(Row(number, left, right, two == ""))
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
    at = 0 if name == "01pairs" else -1
    for place, (number, line) in enumerate(_content(data)):
        fields = _fields(line, 3)
        if len(fields) != 3:
            words = re.split("[ \t]", line)
            label = words.pop(at)
            *both, rest = _split_at_endings(" ".join(words))
            if len(both) != 2 or rest:
                raise UnclearError
        else:
            label = fields.pop(at)
            both = fields
        genuine = said(label)
        if genuine is None:
            cells = line.split()
            if place == 0 and "\t" not in line and len(cells) == 3 and _named(cells):
                continue
            raise UnclearError
        rows.append(Row(number, both[0], both[1], genuine))
    return rows


def _two_lines(_: str, data: bytes) -> list[Row]:
    content = _content(data)
    rows, tokens = [], []
    if len(content) % 2:
        raise UnclearError
    for (number, first), (_, second) in zip(content[::2], content[1::2], strict=True):
        (left, token), (right, again) = _picture_and_token(first), _picture_and_token(second)
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


def _picture_and_token(line: str) -> list[str]:
    fields = _fields(line, 2)
    if len(fields) == 2:
        return fields
    picture, token = re.split("[ \t](?=[^ \t]*$)", line)
    if _split_at_endings(picture) != [picture.strip(" \t"), ""]:
        raise UnclearError
    return [picture.strip(" \t"), token]


def _table(name: str, data: bytes) -> list[Row]:
    lines = _lines(data)
    first = next(line for line in lines if line.strip())
    by_tab = name == "tsv" or (name == "scores" and "\t" in first)
    comma = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(
        (line + "\n" for line in lines), delimiter="\t" if by_tab else comma, strict=True
    )
    table, start = [], 1
    for cells in reader:
        if len(cells) > 1 or "".join(cells).strip():
            table.append((start, cells))
        start = reader.line_num + 1
    header = [cell.strip().lower() for cell in table[0][1]]
    names = _named(header)
    label = _labelled_column(header, names)
    left_at, right_at = names[0] if names else (None, None)
    ends = [said(cell) is not None for cell in header[::2]]
    with_header = len(header) != 3 or (names and label is not None)
    if name == "csv" and not with_header and sorted(ends) == [False, True]:
        table.insert(0, (0, []))
        label, left_at, right_at = (0, 1, 2) if ends[0] else (2, 0, 1)
    scores = [place for place, cell in enumerate(header) if cell == "score"] or [
        place
        for place, cell in enumerate(header)
        if not names
        and _letters(cell)
        in ("scores", "similarity", "cosine", "cosinesimilarity", "similarityscore")
    ]
    assert label is not None
    rows = []
    for number, cells in table[1:]:
        if len(cells) != len(header):
            raise UnclearError
        genuine = said(cells[label])
        if genuine is None:
            raise UnclearError
        left, right = ("" if at is None else cells[at] for at in (left_at, right_at))
        score = _float(cells[scores[0]]) if name == "scores" else None
        fold = _number(cells[header.index("fold")].strip()) if "fold" in header else None
        rows.append(Row(number, left, right, genuine, fold, score))
    folds = sorted({row.fold for row in rows if row.fold is not None})
    rows = [row if row.fold is None else row._replace(fold=folds.index(row.fold)) for row in rows]
    rows = [row._replace(left=row.left.strip(), right=row.right.strip()) for row in rows]
    if name != "scores":
        return with_keys(rows)
    if any(row.left or row.right for row in rows) and not all(
        row.left and row.right for row in rows
    ):
        raise UnclearError
    return rows


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
