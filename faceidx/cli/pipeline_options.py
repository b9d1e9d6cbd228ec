"""The options of every command that embeds pictures."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from faceidx.cli.model_options import FACTS
from faceidx.cli.paths import FILE

if TYPE_CHECKING:
    from faceidx.embedding.pipeline import PipelineOptions


logger = logging.getLogger(__name__)


class _Auto(click.ParamType):
    """A number from 1, or `auto` (None)."""

    name = "auto|N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value == "auto" or value is None:
            return None
        text = str(value)
        if not (text.isascii() and text.isdigit()) or int(text) < 1:
            self.fail(f"{value!r} is neither auto nor a number from 1", param, ctx)
        return int(text)


# Defaults of the library's, which is not loaded for `--help`.
_MIN_FACE, _MIN_SCORE, _MAX_PIXELS = 16, 0.7, 89_478_485
_MODES = ("none", "largest", "central", "all")


def pipeline_options(
    *, detect: str = "auto", model: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of the pipeline; the command gets one argument `pipeline`.

    Args:
        detect: the default of `--detect`; `auto` is offered only where it is the default.
        model: whether there is one; else pictures are only prepared, and `--detect` is a must.
    """
    modes: tuple[str, ...] = _MODES if detect in _MODES else (detect, *_MODES)
    modes = modes if model else tuple(mode for mode in modes if mode != "none")
    options = (
        click.option(
            "--batch-size",
            type=_Auto(),
            default="auto",
            show_default=True,
            help="Pictures a batch.",
        ),
        click.option(
            "--workers",
            type=_Auto(),
            default="auto",
            show_default=True,
            help="Decoding processes.",
        ),
        click.option("--flip", is_flag=True, help="Add the embeddings of the mirror images."),
        click.option(
            "--max-pixels",
            type=click.IntRange(1),
            default=_MAX_PIXELS,
            show_default=True,
            help="Larger pictures are failed.",
        ),
        click.option(
            "--detect",
            type=click.Choice(modes),
            default=detect,
            show_default=True,
            help="Find faces in photos: which are wanted.",
        ),
        click.option(
            "--detector",
            type=FILE,
            metavar="FILE",
            help="The detector.  [default: by `faceidx models get yunet`]",
        ),
        click.option(
            "--min-face",
            type=click.IntRange(8),
            default=_MIN_FACE,
            show_default=True,
            help="Least size, in pixels.",
        ),
        click.option(
            "--min-score",
            type=click.FloatRange(0.1, 1),
            default=_MIN_SCORE,
            show_default=True,
            help="Least sureness.",
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in _NAMES if name in kwargs}
            return function(*args, pipeline=_pipeline(**given), **kwargs)

        for option in reversed(options if model else (options[1], *options[3:])):
            wrapped = option(wrapped)
        return wrapped

    return decorate


_OF_FACES = ("min_face", "min_score")
_NAMES = (
    *("batch_size", "workers", "flip", "max_pixels"),
    *("detect", "detector", *_OF_FACES),
)


def warn_of_useless(context: click.Context) -> None:
    """Warn of options for the faces of photos where none are looked for."""
    warn_of_no_use(context, ("detector", *_OF_FACES), "--detect")


def warn_without_model(context: click.Context) -> None:
    """Warn of options that would change the embeddings where there is no `--model` to make any."""
    ours = ("flip", "max_pixels", "detect", "detector", *_OF_FACES)
    warn_of_no_use(context, (*FACTS, "engine", "precision", *ours), "--model")


def warn_of_no_use(context: click.Context, names: Iterable[str], lacking: str) -> None:
    """Warn of those options, by their names, that are given, where another one is not."""
    for name in names:
        if context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT):
            logger.warning("--%s is of no use without %s", name.replace("_", "-"), lacking)


def _pipeline(*, detect: str, detector: Path | None, **options: Any) -> PipelineOptions:
    from faceidx.embedding.pipeline import PipelineOptions
    from faceidx.images.detector_file import detector_for

    return PipelineOptions(
        detect=detect,
        detector=detector_for(detect, detector),
        detector_given=detector is not None,
        **options,
    )
