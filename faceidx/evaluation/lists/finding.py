"""How a list's names find their pictures, also where both were named from different folders.

A list names `verification_data/7.jpg` or `/home/me/lfw/Ann/Ann_0001.png`, and somebody else has
`7.jpg` or `aligned/Ann/Ann_0001.jpg`. Where no name of a list is known as it stands, one `Way` is
looked for by which the whole list finds its pictures; it is told, never applied in silence.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.lines import shown
from faceidx.evaluation.lists.pairs import PairList
from faceidx.images.keys import is_picture_name, photo_of_crop

_log = logging.getLogger(__name__)

Where = Callable[[int], str]
"""From the place of a name to the file, and the line where there is one, for messages."""

_SAMPLE = 32  # names that are looked for at the end of every known key
_FOLDERS_TRIED = 4
_LEAST = 0.5  # of the names must be found, or the list is taken for one of other pictures


@dataclass(frozen=True, kw_only=True)
class Way:
    """What is done to all names of a list before they are looked up."""

    drop: str = ""
    """Leading folders of the names that are left out."""
    add: str = ""
    """A folder that is put before them."""
    unfold: bool = False
    """`Ann/Ann_0001.jpg` and `Ann_0001.jpg` are one picture."""
    other_ending: bool = False
    """`a.png` and `a.jpg` are one picture."""

    def told(self) -> str:
        """The way in words; empty where names are found as they stand."""
        how = [f"without their leading `{self.drop}`"] if self.drop else []
        how += [f"below `{self.add}`"] if self.add else []
        how += ["whether or not a folder repeats the beginning of their name"] * self.unfold
        how += ["under another ending"] * self.other_ending
        return " and ".join(how)


def resolve(pairs: PairList, known_keys: Sequence[str], way: Way | None = None) -> np.ndarray:
    """Find each picture of a list among known keys.

    A key is looked for as it is, then without the list's `prefix`, then as if the list's author
    had escaped it already (`%25` for `%`), and, where the list leaves suffixes out, among the known
    keys without their suffix. The crop of a photo is known by the photo's name too.

    Args:
        way: by which the names are found; by default the one of `find_way`.

    Returns:
        (K,) int64, row in `known_keys` or -1: a row a key of the list, or a row an entry of
        `templates.pictures` where the list compares templates.

    Raises:
        InputError: a name fits two known pictures.
    """
    way = find_way(pairs, known_keys) if way is None else way
    wanted, where = [_put(name, way) for name in _wanted(pairs)], partial(_line_of, pairs)
    if way.unfold or way.other_ending:
        simplified = [_simplified(key, way) for key in known_keys]
        _refuse_doubles(where, wanted, known_keys, simplified)
        known_keys = simplified
    stems = _without_ending(pairs) and not way.other_ending
    return find_names(where, wanted, known_keys, prefix=pairs.prefix, stems=stems)


def find_way(pairs: PairList, known_keys: Sequence[str]) -> Way:
    """Say by which way most names of a list are found: as they stand, where one of them is.

    Else leading folders that all names share are left out, or a folder is put before all of them,
    or both; then the same where a folder that only repeats the beginning of a file's name does not
    count (`Ann/Ann_0001.jpg`); then the same for pictures of another ending. A way that finds fewer
    than half of the names is none.

    Raises:
        InputError: the names are found in two folders equally.
    """
    as_is = Way()
    if not len(known_keys) or (resolve(pairs, known_keys, as_is) >= 0).any():
        return as_is
    best = _Found(number=0)
    for other_ending, unfold in product((False, True), repeat=2):
        simple = Way(unfold=unfold, other_ending=other_ending or _without_ending(pairs))
        names = [_simplified(name, simple) for name in _wanted(pairs)]
        keys = {_simplified(key, simple) for key in known_keys}
        found = _best_folders(names, keys)
        if found.number > best.number:
            way = Way(drop=found.drop, add=found.add, unfold=unfold, other_ending=other_ending)
            best = found._replace(way=way)
    if best.number < _LEAST * len(_wanted(pairs)):
        return as_is
    if best.rival:
        raise InputError(
            f"{pairs.path}: its names are found in the folder {shown(best.add)} and in "
            f"{shown(best.rival)}; take pictures from one of the two"
        )
    return best.way


def find_names(
    where: Where,
    wanted: Sequence[str],
    known_keys: Sequence[str],
    *,
    prefix: str = "",
    stems: bool = False,
) -> np.ndarray:
    """Find names that stand in a file among known keys, as `resolve` does.

    Args:
        where: each of them stands.
        prefix: as in `PairList`.
        stems: as in `PairList`.

    Returns:
        (K,) int64, row in `known_keys` or -1.

    Raises:
        InputError: a name without suffix fits two known pictures.
    """
    known = {key: row for row, key in enumerate(known_keys)}
    photos = ((row, photo_of_crop(key)) for row, key in enumerate(known_keys))
    crops = {photo: row for row, photo in photos if photo not in known}
    named = chain(enumerate(known_keys), ((row, photo) for photo, row in crops.items()))
    by_stem = _stems(named) if stems else {}
    known.update(crops)
    rows = np.full(len(wanted), -1, dtype=np.int64)
    for place, key in enumerate(wanted):
        for name in _spellings(key, prefix):
            if name in known:
                rows[place] = known[name]
                break
            if name in by_stem:
                rows[place] = _only(by_stem[name], place, name, known_keys, where)
                break
    return rows


def _spellings(key: str, prefix: str) -> list[str]:
    names = [key]
    if prefix and key.startswith(prefix):
        names.append(key[len(prefix) :])
    return names + [name.replace("%25", "%") for name in names if "%25" in name]


def _stems(named: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, key in named:
        suffix = PurePosixPath(key).suffix
        if suffix:
            rows.setdefault(key[: -len(suffix)], []).append(row)
    return rows


def _line_of(pairs: PairList, place: int) -> str:
    """The list, and the first line that has a name; templates are made of pictures elsewhere."""
    if pairs.templates is not None:
        return str(pairs.path)
    first = np.argmax((pairs.left == place) | (pairs.right == place))
    return f"{pairs.path}:{pairs.lines[first]}"


def _only(rows: list[int], place: int, name: str, keys: Sequence[str], where: Where) -> int:
    if len(rows) > 1:
        fitting = [keys[row] for row in rows]
        _log.debug("%s: %s fits both %s and %s", where(place), name, *fitting[:2])
        faces = "#" not in name and all("#" in key for key in fitting)
        remedy = "embed with --detect largest" if faces else "keep one of them"
        raise InputError(
            f"{where(place)}: a name fits {len(rows)} known {'faces' if faces else 'pictures'}; "
            f"{remedy} (-v names two)"
        )
    return rows[0]


def _wanted(pairs: PairList) -> list[str]:
    return pairs.templates.pictures if pairs.templates else pairs.keys


def _without_ending(pairs: PairList) -> bool:
    """Whether the list leaves suffixes out."""
    return pairs.stems or not any(map(is_picture_name, _wanted(pairs)))


class _Found(NamedTuple):
    """Folders by which so many names are found."""

    number: int
    drop: str = ""
    add: str = ""
    rival: str = ""
    """Another folder to add, by which as many are found."""
    way: Way = Way()


def _best_folders(names: Sequence[str], keys: set[str]) -> _Found:
    """Say which folders to leave out and which to add, so that most names are found."""
    best = _Found(number=0)
    for drop in _shared_folders(names):
        rest = [name[len(drop) :] for name in names]
        for add in _folders(rest, keys):
            number = sum(add + name in keys for name in rest)
            if number > best.number:
                best = _Found(number, drop, add)
            elif number == best.number > 0 and drop == best.drop and best.add:
                best = best._replace(rival=add)
    return best


def _shared_folders(names: Sequence[str]) -> Iterator[str]:
    """Yield "", and then the leading folders that all names share, one more each time."""
    yield ""
    first, last = min(names), max(names)  # what these two share, all share
    end = -1
    while (end := first.find("/", end + 1)) >= 0 and first[: end + 1] == last[: end + 1]:
        yield first[: end + 1]


def _folders(names: Sequence[str], keys: set[str]) -> list[str]:
    """The folders in which most of some names are found, at first none."""
    sample = names[:: -(-len(names) // _SAMPLE)]
    ends = tuple(f"/{name}" for name in sample)
    found: Counter[str] = Counter()
    for key in keys:
        if key.endswith(ends):
            found.update(key[: 1 - len(end)] for end in ends if key.endswith(end))
    return ["", *sorted(folder for folder, _ in found.most_common(_FOLDERS_TRIED))]


def _put(name: str, way: Way) -> str:
    return way.add + _simplified(name, way)[len(way.drop) :]


def _simplified(key: str, way: Way) -> str:
    if way.other_ending and is_picture_name(key):
        key = key[: key.rindex(".")]
    if way.unfold:
        folders, _, name = key.rpartition("/")
        above, slash, folder = folders.rpartition("/")
        if folder and name.startswith(folder) and name[len(folder) : len(folder) + 1] in ("_", "-"):
            key = above + slash + name
    return key


def _refuse_doubles(
    where: Where, wanted: Sequence[str], keys: Sequence[str], simplified: Sequence[str]
) -> None:
    """Refuse a name that stands for two pictures once both are simplified."""
    rows: dict[str, list[int]] = {name: [] for name in wanted}
    for row, key in enumerate(simplified):
        if key in rows:
            rows[key].append(row)
    for place, name in enumerate(wanted):
        if rows[name]:
            _only(rows[name], place, name, keys, where)
