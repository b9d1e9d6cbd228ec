"""Paths on the command line: which are read, which are written, and that no output is an input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    """A path; an empty one, as of a variable that is not set, would be the current folder."""

    def __init__(self, *, written: bool) -> None:
        super().__init__(path_type=Path)
        self.written = written

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


FILE, OUTPUT = _Path(written=False), _Path(written=True)
# The files of a gallery, which nothing else may lie among.
_GALLERY = ("manifest.json", "gallery.h5")


def refuse_lost_inputs(context: click.Context) -> None:
    """Raise `click.UsageError` where an output would take the place of an input or another output.

    Or of a part of a gallery.
    """
    given = [
        (number, _name(parameter), path)
        for number, parameter in enumerate(context.command.params)
        for path in _paths(context.params.get(parameter.name or ""))
        if isinstance(parameter.type, _Path)
    ]
    written = {
        number
        for number, parameter in enumerate(context.command.params)
        if isinstance(parameter.type, _Path) and parameter.type.written
    }
    for number, name, out in given:
        if number not in written:
            continue
        for other, other_name, path in given:
            if other != number and _are_same(out, path):
                raise click.UsageError(
                    f"{name} {out} is given as {other_name} too; give each a path of its own",
                    context,
                )
        if all((out.parent / part).exists() for part in _GALLERY):
            raise click.UsageError(f"{name} {out} lies in a gallery; give a path outside", context)


def _name(parameter: click.Parameter) -> str:
    """As the help calls it."""
    return (
        parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.human_readable_name
    )


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple):
        yield from (path for path in value if isinstance(path, Path))


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(one) == os.path.realpath(other)
