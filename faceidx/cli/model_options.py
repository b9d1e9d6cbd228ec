"""The options of every command that takes a MODEL."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import device_option
from faceidx.cli.paths import FILE

if TYPE_CHECKING:
    from faceidx.models.open import ModelOptions

# Named here as well as in the library, which is not loaded for `--help`.
_PRESETS = ("imagenet", "insightface", "adaface", "facenet")
TEMPLATES = ("arcface", "facenet")
FACTS = ("image_size", "mean", "std", "color", "preset", "template", "fc")


class _Triple(click.ParamType):
    """Three numbers, `0.485,0.456,0.406`, or one that stands for all three."""

    name = "r,g,b"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        if isinstance(value, (tuple, list)):
            value = ",".join(map(str, value))
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers *= 3
        if len(numbers) != 3:
            self.fail(f"{value!r} is not three numbers such as 0.485,0.456,0.406", param, ctx)
        return numbers[0], numbers[1], numbers[2]


# What a foreign file does not say.
_FOREIGN_OPTIONS = (
    click.option(
        "--image-size", type=click.IntRange(1, 4096), help="Side of a foreign model's input."
    ),
    click.option("--mean", type=_Triple(), help="Of a foreign model, pixels in 0..1."),
    click.option("--std", type=_Triple(), help="Of a foreign model, pixels in 0..1."),
    click.option("--color", type=click.Choice(["rgb", "bgr"]), help="Of a foreign model."),
    click.option("--preset", type=click.Choice(_PRESETS), help="All of these at once."),
    click.option(
        "--template",
        type=click.Choice(TEMPLATES),
        help="How the faces were aligned that a foreign model was trained on.",
    ),
    click.option(
        "--fc",
        type=click.Choice(["embedding", "classifier"]),
        help="What the last layer of a torchvision ResNet gives, where its size does not tell.",
    ),
)


def model_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add MODEL and what a foreign one may need; the command gets one argument `model`."""

    @functools.wraps(function)
    def wrapped(*args: Any, path: Path, **kwargs: Any) -> Any:
        from faceidx.models.open import ModelOptions

        facts = {name: kwargs.pop(name) for name in FACTS}
        return function(*args, model=ModelOptions(path=path, **facts), **kwargs)

    for option in reversed(_FOREIGN_OPTIONS):
        wrapped = option(wrapped)
    return click.argument("path", metavar="MODEL", type=FILE)(wrapped)


def model_options(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `--model` and what a foreign model may need; the command gets one argument `model`.

    It is a `ModelOptions`, or None where `--model` is optional and not given.
    """
    options = (
        click.option("--model", "path", type=FILE, required=required, help="The model file."),
        *_FOREIGN_OPTIONS,
        click.option(
            "--engine",
            type=click.Choice(["auto", "torch", "onnx", "openvino"]),
            default="auto",
            show_default=True,
            help="What runs the model.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
            default="auto",
            show_default=True,
            help="Of the model's arithmetic.",
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(
            *args: Any,
            path: Path | None,
            device: str,
            engine: str,
            precision: str,
            **kwargs: Any,
        ) -> Any:
            facts = {name: kwargs.pop(name) for name in FACTS}
            model: ModelOptions | None = None
            if path is not None:
                from faceidx.models.open import ModelOptions

                model = ModelOptions(
                    path=path, device=device, engine=engine, precision=precision, **facts
                )
            return function(*args, model=model, **kwargs)

        for option in reversed(options):
            wrapped = option(wrapped)
        return device_option(wrapped)

    return decorate
