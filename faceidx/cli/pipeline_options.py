"""The options of every command that embeds pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click


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


def pipeline_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the pipeline; the command gets one argument `pipeline`."""

    @click.option(
        "--batch-size", type=_Auto(), default="auto", show_default=True, help="Pictures a batch."
    )
    @click.option(
        "--workers", type=_Auto(), default="auto", show_default=True, help="Decoding processes."
    )
    @click.option("--flip", is_flag=True, help="Add the embeddings of the mirror images.")
    @click.option("--max-pixels", type=click.IntRange(1), help="Larger pictures are failed.")
    @functools.wraps(function)
    def wrapped(
        *args: Any,
        batch_size: int | None,
        workers: int | None,
        flip: bool,
        max_pixels: int | None,
        **kwargs: Any,
    ) -> Any:
        from faceidx.embedding.pipeline import PipelineOptions

        pipeline = PipelineOptions(batch_size=batch_size, workers=workers, flip=flip)
        if max_pixels:
            pipeline.max_pixels = max_pixels
        return function(*args, pipeline=pipeline, **kwargs)

    return wrapped
