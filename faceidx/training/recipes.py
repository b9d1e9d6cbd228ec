"""Recipes: what presets the settings that are not given, ours or a file of the user's own."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import tomli_w

from faceidx.errors import InputError
from faceidx.training.options import Recipe, TrainOptions

# Pictures from which a GPU gets the recipe for large sets.
_LARGE_SET = 300_000
# From so many to so many pictures get a recipe for few: what it fits in closed form needs a few
# hundred people, and beyond the end networks learn more than it holds.
_FEW = (1_000, 30_000)
# A small set gets a smaller batch than the recipe's, so that an epoch has about this many steps.
_LEAST_STEPS, _SMALL_BATCH = 16, 8

# What a setting may be; what is no number is in no range.
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "image_size": (lambda v: v >= 16, "16 or more"),
    "embedding_dim": (lambda v: v >= 1, "1 or more"),
    "epochs": (lambda v: v >= 1, "1 or more"),
    "batch_size": (lambda v: v >= 1, "1 or more"),
    "accumulate": (lambda v: v >= 1, "1 or more"),
    "lr": (lambda v: 0 < v < math.inf, "a number above 0"),
    "scale": (lambda v: 0 < v < math.inf, "a number above 0"),
    "margin": (lambda v: 0 <= v < math.inf, "a number from 0"),
    "weight_decay": (lambda v: 0 <= v < math.inf, "a number from 0"),
    "warmup_epochs": (lambda v: 0 <= v < math.inf, "a number from 0"),
    "clip_norm": (lambda v: 0 <= v < math.inf, "a number, 0 for none"),
    "label_smoothing": (lambda v: 0 <= v <= 1, "a share from 0 to 1"),
    "ema": (lambda v: 0 <= v < 1, "a decay from 0 to below 1, such as 0.999"),
    "sample_rate": (lambda v: 0 < v <= 1, "a share above 0, 1 for all"),
}


def recipe_names() -> list[str]:
    """Names for `--recipe`, besides `auto`."""
    folder = resources.files("faceidx").joinpath("recipes")
    names = [f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")]
    return sorted(names)


def _fitting(pictures: int, *, on_gpu: bool, arch: str | None) -> str:
    """The name of the recipe that `auto` stands for; those for few have architectures of their own.

    Args:
        arch: as it was given.
    """
    few = "few_gpu" if on_gpu else "few"
    if arch in (None, _packaged(few).arch) and _FEW[0] <= pictures < _FEW[1]:
        return few
    if on_gpu:
        return "gpu" if pictures < _LARGE_SET else "large"
    return "laptop"


def settle_recipe(
    options: TrainOptions, *, pictures: int, on_gpu: bool, fixed: Mapping[str, Any] | None = None
) -> tuple[str, Recipe]:
    """Choose the recipe, and let the options that were given beat it.

    Args:
        pictures: how many there are to train on.
        fixed: settings that the model which the run starts from leaves no choice about.

    Returns:
        Its name, and its settings.

    Raises:
        InputError: no such recipe, or a value out of range.
    """
    own = _own(Path(options.recipe)) if options.recipe.endswith(".toml") else None
    names = [f.name for f in fields(Recipe)]
    given = {n: getattr(options, n) for n in names if getattr(options, n, None) not in (None, ())}
    given |= fixed or {}
    arch = given.get("arch") or (own or {}).get("arch")
    fitting = _fitting(pictures, on_gpu=on_gpu, arch=arch)
    name = fitting if options.recipe == "auto" else options.recipe
    if own is not None:
        recipe = _changed(_packaged(fitting), own)
    elif name in recipe_names():
        recipe = _packaged(name)
    else:
        raise InputError(
            f"no recipe named {name!r}; there are auto, {', '.join(recipe_names())}, and a file of "
            "your own, NAME.toml"
        )
    recipe = _changed(recipe, given)
    for setting, (is_sound, wanted) in _RANGES.items():
        value = getattr(recipe, setting)
        if value is not None and not is_sound(value):
            raise InputError(f"--{setting.replace('_', '-')} {value}: give {wanted}")
    if options.batch_size is None and "batch_size" not in (own or {}):
        recipe.batch_size = min(recipe.batch_size, max(_SMALL_BATCH, pictures // _LEAST_STEPS))
    return name, recipe


def as_toml(settings: Mapping[str, Any]) -> str:
    """Settings of a recipe as the text of a file for `--recipe`, without those that are not set."""
    names = {f.name for f in fields(Recipe)}
    return tomli_w.dumps({k: v for k, v in settings.items() if k in names and v not in (None, ())})


def _changed(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    if settings.get("loss", recipe.loss) != recipe.loss:
        recipe = replace(recipe, scale=None, margin=None)  # they are those of its own loss
    return replace(recipe, **settings)


def _packaged(name: str) -> Recipe:
    text = resources.files("faceidx").joinpath("recipes", f"{name}.toml").read_text("utf-8")
    return Recipe(**tomllib.loads(text))


def _own(file: Path) -> dict[str, Any]:
    """The settings of a recipe of the user's own; what it does not say is as `auto` has it.

    Raises:
        InputError: it cannot be read, or a setting is unknown or of the wrong kind.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file}: no readable TOML file ({error})") from None
    kinds = get_type_hints(Recipe)
    settings: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise InputError(
                f"{file}: no recipe has a setting {key!r}; there are {', '.join(kinds)}"
            )
        if isinstance(value, list):
            value = tuple(value)
        if not _is_of(value, kinds[name]):
            raise InputError(f"{file}: {key} = {value!r} is no {_KIND_NAMES[kinds[name]]}")
        settings[name] = value
    return settings


_KIND_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    float | None: "number",
    tuple[str, ...]: "list of texts",
}


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return False
    if kind == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    return isinstance(value, (int, float) if kind in (float, float | None) else kind)
