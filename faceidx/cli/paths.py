"""Paths on the command line: which are read, which are written, and that no output is an input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from faceidx.files import goes_in_a_circle


class _Path(click.Path):
    """A path; an empty one, as of a variable that is not set, would be the current folder."""

    def __init__(self, *, written: bool, replaced: bool = False) -> None:
        """`replaced`: a folder that is exchanged for another as a whole."""
        super().__init__(path_type=Path)
        self.written, self.replaced = written, replaced

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("the path is empty", param, ctx)
        path: Any = super().convert(value, param, ctx)
        if goes_in_a_circle(path):
            self.fail(f"{path} is a link that leads back to itself", param, ctx)
        return path


FILE, OUTPUT = _Path(written=False), _Path(written=True)
OUTPUT_FOLDER = _Path(written=True, replaced=True)
# The files of a gallery, which nothing else may lie among.
_GALLERY = ("manifest.json", "gallery.h5")


def refuse_lost_inputs(context: click.Context) -> None:
    """Raise `click.UsageError` where an output would take the place of an input or another output.

    Or of what such a one lies in, or of a part of a gallery.
    """
    given = [
        (parameter, parameter.type, path)
        for parameter in context.command.params
        if isinstance(parameter.type, _Path)
        for path in _paths(context.params.get(parameter.name or ""))
    ]
    for parameter, kind, out in given:
        if not kind.written:
            continue
        for other, _, path in given:
            if other is parameter:
                continue
            if _are_same(out, path):
                raise click.UsageError(
                    f"{_name(parameter)} {out} is given as {_name(other)} too; give each a path of "
                    "its own",
                    context,
                )
            if (
                kind.replaced
                and Path(os.path.realpath(out)) in Path(os.path.realpath(path)).parents
            ):
                raise click.UsageError(
                    f"{_name(other)} {path} lies in {_name(parameter)} {out}, which is replaced as "
                    "a whole; give a path outside",
                    context,
                )
        if all((out.parent / part).exists() for part in _GALLERY):
            raise click.UsageError(
                f"{_name(parameter)} {out} lies in a gallery; give a path outside", context
            )


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
