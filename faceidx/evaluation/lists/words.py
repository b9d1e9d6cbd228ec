"""The words by which lists say which column is which, and whether a pair is one person.

People name the two columns of pictures in many ways that differ in one mark of the side: `img1` and
`img2`, `path_a` and `path_b`, `left_image` and `right_image`. So no list of names is kept, but one
of the marks and one of the words that may stand beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from faceidx.evaluation.lists.lines import ListError, shown

_SIDES = (
    *(("1", "2"), ("0", "1"), ("a", "b"), ("x", "y"), ("l", "r"), ("i", "j")),
    *(("left", "right"), ("first", "second"), ("one", "two")),
    *(("reference", "probe"), ("ref", "probe"), ("gallery", "probe"), ("enrolled", "probe")),
    *(("gallery", "query"), ("reference", "query"), ("reference", "test")),
    *(("enroll", "test"), ("enrol", "test"), ("enrollment", "test"), ("enroll", "verify")),
)
_PICTURE = (
    "images?|imgs?|im|pictures?|pics?|photos?|faces?|frames?|files?|filenames?|fname|fn|paths?|url"
    "|crops?"
)
# Beside a word for pictures these say nothing; alone they may also name something else.
_BESIDE = "names?|person|subject|user|full|relative|rel|absolute|abs|local|aligned|cropped|input"
_ALONE = "p|f|x|s|ids?|keys?|samples?|items?|utt|utterance|wav|audio|clip|video|template"
_PICTURES = re.compile(f"(?:{_PICTURE}|{_BESIDE})*(?:{_PICTURE})(?:{_PICTURE}|{_BESIDE})*")
_PERHAPS = re.compile(f"(?:{_PICTURE}|{_BESIDE}|{_ALONE})+")
_LONGEST = 40  # letters of a name of a column; some of the words can be put together in two ways

_LABELS_TOLD = "label, genuine, same, is_same, decision or match"
_SURE = frozenset(
    {"label", "labels", "pairlabel", "genuine", "decision", "match", "matched", "mated"}
    | {"same", "sameperson", "samesubject", "sameidentity", "sameid", "sameface"}
)
# These may mean something else, so they count only where none of the others is there.
_LIKELY = frozenset(
    {"target", "y", "ytrue", "gt", "groundtruth", "truth", "actual", "positive", "samediff"}
    | {"class", "kind", "type", "pairtype"}
)
SCORE = "score"
# Without names and a `score` these can be nothing else.
_SCORES = frozenset(
    {"scores", "yscore", "similarity", "cosine", "cosinesimilarity", "similarityscore"}
)

_TRUE = (
    *("1", "true", "t", "yes", "y", "same", "sameperson", "genuine", "match", "matched", "mated"),
    *("positive", "pos", "target"),
)
_FALSE = (
    *("0", "-1", "false", "f", "no", "n", "different", "diff", "differentperson", "notsame"),
    *("differentpeople", "impostor", "imposter", "nonmatch", "nomatch", "notmatch", "mismatch"),
    *("unmatched", "nonmated", "unmated", "negative", "neg", "nontarget"),
)
_VALUES = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
_NUMBER = re.compile(r"[+-]?[01](?:\.0*)?")
_TOLD = "1, true, yes, same, genuine, match, 0, false, no, different, impostor, -1"


class Columns(NamedTuple):
    """Places of the known columns in a row."""

    names: tuple[int, ...]
    """Both columns of names, or none."""
    label: int
    score: int = -1
    """-1 where the table has none, as for `fold`."""
    fold: int = -1


def label_value(text: str) -> bool | None:
    """Whether a label says that a pair is genuine; None where it is no label."""
    word = _word(text)
    return None if word is None else _VALUES[word]


class Labels:
    """The labels of one list, which says impostor by 0 or by -1 but not by both."""

    def __init__(self) -> None:
        self._negative: str | None = None

    def values(self, texts: Sequence[str]) -> dict[str, bool] | None:
        """The value of each different label; None where one of the texts is none."""
        values = {}
        negative = self._negative
        for text in set(texts):
            word = _word(text)
            if word is None:
                return None
            if word in ("0", "-1"):
                if negative not in (None, word):
                    return None
                negative = word
            values[text] = _VALUES[word]
        self._negative = negative
        return values

    def fault(self, text: str) -> str:
        """What is wrong with a label that `values` refuses."""
        if _word(text) is not None:
            return "labels are 0 here and -1 elsewhere, so that 0 may say `unknown`; use one"
        return f"the label {shown(text)} is none of {_TOLD}; correct it"


@lru_cache(maxsize=256)
def _word(text: str) -> str | None:
    text = text.strip().lower()
    word = str(int(float(text))) if _NUMBER.fullmatch(text) else re.sub("[ _-]", "", text)
    return word if word in _VALUES else None


def named_twice(cells: Sequence[str]) -> str | None:
    """What is wrong with a header that names a column twice; None where none is."""
    twice = next((cell for cell in cells if cell and cells.count(cell) > 1), None)
    return None if twice is None else f"the header names {shown(twice)} twice; rename one"


def columns_of(path: Path, line: int, cells: Sequence[str], *, scores: bool) -> Columns:
    """Say which column of a table is which.

    Args:
        cells: the header's, stripped and in lower case.
        scores: the table is one of scores, with or without names.

    Raises:
        ListError: the header does not say it.
    """
    names = name_columns(cells)
    labels = label_columns(cells, names)
    twice = named_twice(cells)
    score = score_column(cells, names)
    fault = ""
    if twice is not None and (labels or names):
        fault = twice
    elif not labels:
        fault = f"no column of the header is a label; name it {_LABELS_TOLD}"
    elif len(labels) > 1 or len(names) > 1:
        several = [(place,) for place in labels] if len(labels) > 1 else names
        told = " and ".join("/".join(cells[place] for place in places) for places in several)
        fault = f"the header has both {told}; keep one, rename the other"
    elif scores and score < 0:
        fault = "no column of the header is named `score`; name it so"
    elif not scores and not names:
        fault = (
            "the header names no two columns of pictures; name them `left` and `right` (or, in a "
            "table of scores, the column of scores `score`, in which more means more alike)"
        )
    if fault:
        raise ListError(path, line, fault, understood=bool(labels or names) or SCORE in cells)
    return Columns(
        names=names[0] if names else (),
        label=labels[0],
        score=score,
        fold=cells.index("fold") if "fold" in cells else -1,
    )


def score_column(cells: Sequence[str], names: Sequence[tuple[int, int]] = ()) -> int:
    """Place of the column of scores, -1 where there is none."""
    if SCORE in cells:
        return cells.index(SCORE)
    found = [] if names else [i for i, cell in enumerate(cells) if _letters(cell) in _SCORES]
    return found[0] if len(found) == 1 else -1


def label_columns(cells: Sequence[str], names: Sequence[tuple[int, int]]) -> list[int]:
    """Places of the columns that are named like a label: one, or as many as contradict."""
    taken = {place for two in names for place in two}
    words = {
        place: _letters(cell).removeprefix("is")
        for place, cell in enumerate(cells)
        if place not in taken
    }
    for known in (_SURE, _LIKELY):
        found = [place for place, word in words.items() if word in known]
        if found:
            return found
    return []


def name_columns(cells: Sequence[str]) -> list[tuple[int, int]]:
    """Places of both columns of names: of one couple, or of as many as are equally likely."""
    places: dict[tuple[str, int, int], list[int]] = {}
    for place, cell in enumerate(cells):
        for found in _marked(_letters(cell)):
            places.setdefault(found, []).append(place)
    likely: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for (base, sides, side), first in places.items():
        second = places.get((base, sides, 1), []) if side == 0 else []
        likely[_is_sure(base, _SIDES[sides])] += product(first, second)
    return likely[True] or likely[False]


def _marked(word: str) -> Iterator[tuple[str, int, int]]:
    """Yield (what is beside the mark, number of the sides, 0 or 1) for every mark of a side."""
    if len(word) > _LONGEST:
        return
    for sides, marks in enumerate(_SIDES):
        for side, mark in enumerate(marks):
            start = word.find(mark)
            while start >= 0:
                base = word[:start] + word[start + len(mark) :]
                if not base or _PERHAPS.fullmatch(base):
                    yield base, sides, side
                start = word.find(mark, start + 1)


def _is_sure(base: str, marks: tuple[str, str]) -> bool:
    """Whether a column that is named so can hold nothing but pictures."""
    if not base:
        return len(marks[0]) > 1 or marks == ("a", "b")
    return _PICTURES.fullmatch(base) is not None


def _letters(cell: str) -> str:
    """The letters and digits alone of a column's name."""
    return "".join(filter(str.isalnum, cell))
