"""What to train and how: the command's options, and a recipe's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    """`auto`, the name of a file under `faceidx/recipes/`, or a TOML file of the user's own."""
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
    template: str | None = None
    """Alignment of the faces (`images.templates.TEMPLATES`), where nothing else says it."""
    val: str = "0.1"
    """A folder, or the share of the data to hold out."""
    pairs: Path | None = None
    """A pair list to report each epoch."""
    pairs_root: Path | None = None
    pairs_format: str | None = None
    """Of the pair list; None recognises it."""
    select: str = "val"
    """What chooses the best model: `val` or `pairs`."""
    device: str = "auto"
    devices: str = "auto"
    """`auto`, or the number of processes (on a GPU, of GPUs)."""
    num_nodes: int = 1
    precision: str = "auto"
    compile: str = "auto"
    """`auto`, `on` or `off`: whether torch compiles the backbone."""
    save_steps: int = 500
    """The state is saved every so many steps, so that little is lost of a long epoch."""
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
