"""What to train and how: the command's options, and the recipes that fill what is not given."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path

from faceidx.errors import InputError

# Pictures from which a GPU gets the recipe for large sets.
_LARGE_SET = 300_000
# A small set gets a smaller batch than the recipe's, so that an epoch has about this many steps.
_LEAST_STEPS, _SMALL_BATCH = 16, 8


@dataclass(kw_only=True)
class TrainOptions:
    """Options of `faceidx train`. None leaves a choice to the recipe."""

    data: Path
    out: Path
    root: Path | None = None
    """Where the pictures of a list lie; by default in the list's own folder."""
    min_pictures: int = 1
    """Identities with fewer pictures are left out."""
    recipe: str = "auto"
    """`auto`, or the name of a file under `faceidx/recipes/`."""
    arch: str | None = None
    from_model: Path | None = None
    """A model of ours to start from, for the stages `continue` and `finetune`."""
    stage: str | None = None
    """`pretrain`, `continue` or `finetune`; None chooses by `from_model` and the identities."""
    loss: str | None = None
    scale: float | None = None
    """Scale of the margin losses; None leaves it to the recipe, and there to the paper."""
    margin: float | None = None
    aux: tuple[str, ...] = ()
    aux_weight: float | None = None
    """Weight of every auxiliary loss; None takes each one's own default."""
    aux_start: str = "auto"
    """`auto` (once the validation curve has flattened), or the epoch, from 1, to start at."""
    epochs: int | None = None
    batch_size: int | None = None
    """Pictures a step, over all processes."""
    lr: float | None = None
    weight_decay: float | None = None
    optimizer: str | None = None
    clip_norm: float | None = None
    ema: float | None = None
    accumulate: int | None = None
    sampling: str | None = None
    sample_rate: float | None = None
    head_shards: str = "auto"
    """Spread the classifier over the processes: `auto` (where it is large), `on` or `off`."""
    sync_bn: str = "auto"
    """Batch norm over all processes: `auto` (on a CPU, on GPUs of few pictures), `on` or `off`."""
    warmup_epochs: float | None = None
    label_smoothing: float | None = None
    image_size: int | None = None
    embedding_dim: int | None = None
    augment: str | None = None
    val: str = "0.1"
    """A folder, or the share of the data to hold out."""
    pairs: Path | None = None
    """A pair list to report each epoch."""
    pairs_root: Path | None = None
    select: str = "val"
    """What chooses the best model: `val` or `pairs`."""
    device: str = "auto"
    devices: str = "auto"
    """`auto`, or the number of processes (on a GPU, of GPUs)."""
    num_nodes: int = 1
    precision: str = "auto"
    seed: int = 0
    follow_links: bool = False
    overwrite: bool = False


@dataclass(kw_only=True)
class Recipe:
    """Every setting of a run that shapes the model; all given."""

    arch: str
    image_size: int
    embedding_dim: int
    loss: str
    epochs: int
    batch_size: int
    lr: float
    """Peak rate."""
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    augment: str
    """Strength of the augmentation: `none`, `light`, `medium`, `strong` or
    `randaugment`."""
    aux: tuple[str, ...] = ()
    scale: float | None = None
    """Scale and margin of the margin losses; None takes those of the loss's paper."""
    margin: float | None = None
    optimizer: str = "sgd"
    """`sgd` (Nesterov momentum 0.9) or `adamw`."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: float = 0.0
    """Decay of the weights' moving average, which is then what is judged and kept; 0 for none."""
    accumulate: int = 1
    """Parts that a batch goes through the network in; the gradient is that of the whole batch."""
    sampling: str = "natural"
    """`natural`: each picture once an epoch; `balanced`: each identity as often as any other."""
    sample_rate: float = 1.0
    """Share of the classes that takes part in a step, those of the batch always among them."""


def recipe_names() -> list[str]:
    """Names for `--recipe`, besides `auto`."""
    folder = resources.files("faceidx").joinpath("recipes")
    names = [f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")]
    return sorted(names)


def settle_recipe(options: TrainOptions, *, pictures: int, on_gpu: bool) -> Recipe:
    """Choose the recipe, and let the options that were given beat it.

    Args:
        pictures: how many there are to train on.

    Raises:
        InputError: no such recipe, or a value out of range.
    """
    name = options.recipe
    if name == "auto":
        name = "laptop" if not on_gpu else "gpu" if pictures < _LARGE_SET else "large"
    if name not in recipe_names():
        raise InputError(f"no recipe named {name!r}; there are auto, {', '.join(recipe_names())}")
    text = resources.files("faceidx").joinpath("recipes", f"{name}.toml").read_text("utf-8")
    recipe = Recipe(**tomllib.loads(text))
    names = [f.name for f in fields(Recipe)]
    given = {n: getattr(options, n) for n in names if getattr(options, n, None) is not None}
    recipe = replace(recipe, **given)
    if min(recipe.epochs, recipe.batch_size) < 1 or recipe.lr <= 0:
        raise InputError("--epochs and --batch-size must be 1 or more, --lr above 0")
    if not 0 <= recipe.ema < 1:
        raise InputError(f"--ema {recipe.ema}: give a decay from 0 to below 1, such as 0.999")
    if not 0 < recipe.sample_rate <= 1:
        raise InputError(f"--sample-rate {recipe.sample_rate}: give a share above 0, 1 for all")
    if options.batch_size is None:
        recipe.batch_size = min(recipe.batch_size, max(_SMALL_BATCH, pictures // _LEAST_STEPS))
    return recipe
