"""Reading lists of pairs and score files: which pictures are compared, and which are one person.

`read_list` recognises a format from the whole file; docs/verification.md describes each. A list is
read completely or refused: no pair is dropped or made up, and a file that two formats understand,
or none does, is an error that names line and formats.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faceidx.errors import InputError
from faceidx.evaluation.lists.cfp import CFP_FORMATS, cfp_formats, read_cfp
from faceidx.evaluation.lists.finding import resolve
from faceidx.evaluation.lists.ijb import is_ijb, read_ijb
from faceidx.evaluation.lists.labelled import (
    TWO_LINE_FORMATS,
    read_01pairs,
    read_pairs01,
    read_two_lines,
)
from faceidx.evaluation.lists.lfw import read_lfw
from faceidx.evaluation.lists.lines import ListError, is_comment, read_lines, shown
from faceidx.evaluation.lists.packed import read_packed_pairs
from faceidx.evaluation.lists.pairs import PairList, ScoreList, Templates
from faceidx.evaluation.lists.scores import is_pyeer, read_bob, read_pyeer
from faceidx.evaluation.lists.table import has_scores, read_score_table, read_table
from faceidx.images.packed import is_packed

__all__ = ["FORMATS", "PairList", "ScoreList", "Templates", "read_list", "resolve"]

_Reader = Callable[[Path], PairList | ScoreList]


def _table(name: str) -> _Reader:
    return lambda path: read_table(path, name)


def _two_lines(name: str) -> _Reader:
    return lambda path: read_two_lines(path, name)


def _cfp(name: str) -> _Reader:
    return lambda folder: read_cfp(folder, name)


_FILES: dict[str, _Reader] = {
    "lfw": read_lfw,
    "pairs01": read_pairs01,
    "01pairs": read_01pairs,
    **{name: _two_lines(name) for name in TWO_LINE_FORMATS},
    "csv": _table("csv"),
    "tsv": _table("tsv"),
    "scores": read_score_table,
    "bob": read_bob,
    "insightface-bin": read_packed_pairs,
}
_FOLDERS: dict[str, _Reader] = {
    **{name: _cfp(name) for name in CFP_FORMATS},
    "ijb": read_ijb,
    "pyeer": read_pyeer,
}
FORMATS: tuple[str, ...] = (*_FILES, *_FOLDERS)
"""The formats that `read_list` knows by name."""


def read_list(
    path: Path,
    *,
    format: str = "auto",  # noqa: A002
    option: str = "--format",
) -> PairList | ScoreList:
    """Read a list of pairs or a score file.

    Args:
        path: a file, or the folder of CFP, of IJB-B or IJB-C, or of two score files of pyeer.
        format: one of `FORMATS`, or `auto` to recognise it.
        option: what the format is given by, for messages.

    Raises:
        InputError: the path is missing, no format or more than one understands the list, or a
            line contradicts the format; the message names file, line and way out.
    """
    if format not in ("auto", *FORMATS):
        names = ", ".join(FORMATS)
        raise InputError(f"{option}: there is no format {shown(format)}; give one of {names}")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: no such file or folder; give a list of pairs")
    try:
        if format == "auto":
            return (_recognise_folder if path.is_dir() else _recognise_file)(path, option)
        _check_kind(path, format)
        return (_FILES | _FOLDERS)[format](path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _check_kind(path: Path, name: str) -> None:
    if path.is_dir() != (name in _FOLDERS):
        kind, wanted = ("folder", "file") if path.is_dir() else ("file", "folder")
        raise InputError(f"{path} is a {kind}, but the format {name} is read from a {wanted}")


def _recognise_folder(folder: Path, option: str) -> PairList | ScoreList:
    formats = cfp_formats(folder)
    formats += ["ijb"] if is_ijb(folder) else []
    formats += ["pyeer"] if is_pyeer(folder) else []
    if not formats:
        raise InputError(
            f"{folder}: no list known here lies in this folder; give a list, or a folder with "
            "CFP's Protocol, IJB's meta files, or a genuine and an impostor score file"
        )
    if len(formats) > 1:
        raise InputError(
            f"{folder}: holds lists of more than one format; give {option} {' or '.join(formats)}"
        )
    return _FOLDERS[formats[0]](folder)


def _recognise_file(path: Path, option: str) -> PairList | ScoreList:
    """Try every format on the whole file: one must understand it, and only one."""
    if is_packed(path):
        return read_packed_pairs(path)
    first, text = _first_line(path)
    understood: list[PairList | ScoreList] = []
    refused: list[tuple[str, ListError]] = []
    for name, reader in _candidates(path).items():
        try:
            understood.append(reader(path))
        except ListError as error:
            # The traceback would keep all that was read until then.
            refused.append((name, error.with_traceback(None)))
    if len(understood) == 1:
        return understood[0]
    if understood:
        raise InputError(
            f"{path}:{understood[0].lines[0]}: this list can be read in more than one way; give "
            f"{option} {' or '.join(found.format for found in understood)}"
        )
    raise _most_telling(path, first, text, refused, option)


def _candidates(path: Path) -> dict[str, _Reader]:
    lines: dict[str, _Reader] = {
        "lfw": read_lfw,
        "pairs01": read_pairs01,
        "01pairs": read_01pairs,
        TWO_LINE_FORMATS[0]: read_two_lines,
        "bob": read_bob,
    }
    if has_scores(path):
        return {**lines, "scores": read_score_table}
    return {**lines, "csv": _table("csv"), "tsv": _table("tsv")}


def _first_line(path: Path) -> tuple[int, str]:
    """Number and text of the first line that says something."""
    for number, line in read_lines(path):
        if not is_comment(line):
            return number, line
    raise InputError(f"{path}: holds no pairs; give a list with at least one")


def _most_telling(
    path: Path, first: int, text: str, refused: list[tuple[str, ListError]], option: str
) -> InputError:
    """The refusal of the format that got furthest, which is the one that the list is most like."""
    furthest = max(error.progress for _, error in refused)
    closest = [(name, error) for name, error in refused if error.progress == furthest]
    if furthest == first and len(text.replace(",", " ").split()) == 2:
        return InputError(
            f"{path}:{first}: {shown(text)} has two fields; where they name a pair of pictures, "
            "its label is lacking: write 1 (one person) or 0 behind them, or have scores alone by "
            "--unlabelled"
        )
    if furthest == first:
        return InputError(
            f"{path}:{first}: no format known here starts like this; give {option}, one of "
            f"{', '.join(FORMATS)}"
        )
    if len(closest) > 1:
        names = " or ".join(name for name, _ in closest)
        return InputError(
            f"{path}:{int(furthest)}: up to here the list reads as {names}, but this line is "
            "neither; correct it"
        )
    name, error = closest[0]
    return InputError(f"{error} (read as {name})")
