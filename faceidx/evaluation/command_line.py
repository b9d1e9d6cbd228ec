"""The command that a report was made by, written so that it can be given again."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from faceidx.images.detect import Detector
from faceidx.images.detector_file import YUNET, cached_file

# Fields that the command line calls otherwise.
_NAMES = {"path": "model", "gallery": "index"}
# What the commands take where nothing is given, while the library takes something else.
_DEFAULTS = {"detect": "auto"}
# What the library settles for itself, and no report's command has an option for.
_SETTLED = {"card", "compiled", "detector_given", "keep_identity"}


def command_of(
    words: Sequence[str], operands: Sequence[Path], options: Any, *, given: Collection[str] = ()
) -> str:
    """Write a command with every option that is not its default, quoted for a shell.

    Args:
        words: the command and what stands before its operands.
        options: the command's dataclass; a field is the option of its name.
        given: fields that stand among words and operands.
    """
    # An operand that begins with a dash would be taken for an option.
    paths = [f"./{path}" if str(path).startswith("-") else str(path) for path in operands]
    return shlex.join(["faceidx", *words, *paths, *_flags(options, given)])


def _flags(options: Any, given: Collection[str] = ()) -> Iterator[str]:
    for field in fields(options):
        value, name = getattr(options, field.name), _NAMES.get(field.name, field.name)
        if field.name in given or field.name in _SETTLED:
            continue
        if isinstance(value, Detector):
            value = value.path
            if value is None or (value == cached_file(YUNET) and not options.detector_given):
                continue
        if is_dataclass(value):
            yield from _flags(value)
        elif value != _default(field):
            yield f"--{name.replace('_', '-')}"
            if value is not True:
                yield ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return _DEFAULTS.get(field.name, field.default)
