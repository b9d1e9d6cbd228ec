"""The options of every command that judges a list of pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import click
from click.core import ParameterSource


def _folds(ctx: click.Context, param: click.Parameter, value: str) -> Literal["auto"] | int:
    if value == "auto":
        return "auto"
    if not value.isascii() or not value.isdigit() or int(value) < 2:
        raise click.BadParameter(f"{value!r} is neither auto nor a number from 2", ctx, param)
    return int(value)


_OPTIONS = {
    "list_format": click.option(
        "--format",
        "list_format",
        default="auto",
        show_default=True,
        help="Format of PAIRS: lfw, csv, scores, ...; a wrong name lists them all.",
    ),
    "fmr": click.option(
        "--fmr",
        default="1e-1,1e-2,1e-3",
        show_default=True,
        help="False match rates at which the true accept rate is reported.",
    ),
    "folds": click.option(
        "--folds",
        default="auto",
        show_default=True,
        callback=_folds,
        help="Folds of the accuracy: auto takes the list's own, else 10 stratified ones.",
    ),
    "missing": click.option(
        "--missing",
        type=click.Choice(["exclude", "reject"]),
        default="exclude",
        show_default=True,
        help="Leave pairs with a missing picture out, or count each as a non-match.",
    ),
}


def judging_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--format` (as `list_format`), `--fmr`, `--folds` and `--missing`."""
    for option in reversed(_OPTIONS.values()):
        function = option(function)
    return function


def refuse_judging_options(context: click.Context, why: str) -> None:
    """Raise `click.UsageError` where one of these options is given, as nothing is judged.

    Args:
        why: what follows the option in the message.
    """
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT
        if given and option.name in _OPTIONS:
            raise click.UsageError(f"{option.opts[0]} {why}", context)
