"""What is trained: backbone, head and auxiliary losses as one module, so that DDP sees them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from faceidx.errors import InputError
from faceidx.images.preprocess import Preprocessing
from faceidx.losses.angle import AngleLoss
from faceidx.losses.center import CenterLoss
from faceidx.losses.cosine import CosineHead
from faceidx.losses.registry import COSINE_HEADS, create_auxiliary, create_head
from faceidx.losses.scoring_head import ScoringHead
from faceidx.losses.sharded import ClassShard, create_shard
from faceidx.models.file import ModelFile, read_model
from faceidx.models.hybrid import HybridFace
from faceidx.models.open import kind_of
from faceidx.models.record import Head, ModelRecord
from faceidx.models.registry import create_backbone
from faceidx.models.torch_model import build_backbone, normalize_pictures
from faceidx.processes import RowRange, SpreadRows
from faceidx.training.options import Recipe, TrainOptions


class TrainingNetwork(nn.Module):
    """Pictures and labels to a loss."""

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        auxiliaries: dict[str, nn.Module],
        preprocessing: Preprocessing,
        shard: ClassShard | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.shard = shard
        """Which of the classes the head holds; None where it holds all and trains all."""
        self.auxiliaries = nn.ModuleDict(auxiliaries)
        self.preprocessing = preprocessing
        self.compiled: Callable[[torch.Tensor], torch.Tensor] | None = None
        """What runs the backbone while it trains, where torch has compiled it."""

    def embed(self, pictures: torch.Tensor, fixed: torch.Tensor | None = None) -> torch.Tensor:
        """(N, H, W, 3) pictures in 0..255 to (N, D) embeddings, not normalised.

        Args:
            fixed: what `fixed_part` gives for these pictures, where that is known.
        """
        pictures = normalize_pictures(pictures, self.preprocessing)
        if fixed is not None:
            hybrid = cast(HybridFace, self.backbone)
            return hybrid.judged(hybrid.faces(pictures), fixed)
        embeddings: torch.Tensor = self.backbone(pictures)
        return embeddings

    def fixed_part(self, pictures: torch.Tensor) -> torch.Tensor | None:
        """What of the embeddings of pictures, as for `embed`, no step changes; None: nothing."""
        if not isinstance(self.backbone, HybridFace):
            return None
        pictures = normalize_pictures(pictures, self.preprocessing)
        described: torch.Tensor = self.backbone.descriptor(self.backbone.faces(pictures))
        return described

    def forward(
        self, pictures: torch.Tensor, labels: torch.Tensor, weights: Mapping[str, float]
    ) -> dict[str, torch.Tensor]:
        """One training step's losses.

        Args:
            pictures: (N, H, W, 3) in 0..255.
            labels: (N,) int64.
            weights: of the auxiliary losses; one of weight 0 is left out, and stands still.

        Returns:
            Scalars: `loss` (what to minimise), `correct` (how many were classified right), the
            head's own loss as `head`, each active auxiliary loss under its name, and the mean
            length of the embeddings as `norm`.
        """
        if self.compiled:
            embeddings = self.compiled(normalize_pictures(pictures, self.preprocessing))
        else:
            embeddings = self.embed(pictures)
        if self.shard:
            total, right = self.shard.loss(cast(ScoringHead, self.head), embeddings, labels)
        else:
            total, logits = self.head(embeddings, labels)
            right = logits.detach().argmax(1) == labels
        parts = {"head": total.detach()}
        for name, auxiliary in self.auxiliaries.items():
            if not weights.get(name):
                continue
            extra = (self.head.weight,) if name == "angle" else ()
            value = auxiliary(embeddings, labels, *extra)
            total = total + weights[name] * value
            parts[name] = value.detach()
        parts["norm"] = embeddings.detach().float().norm(dim=1).mean()
        return {"loss": total, "correct": right.sum(), **parts}

    def prepare(self, labels: torch.Tensor, seed: int) -> None:
        """Choose the classes that take part in a step, where not all do.

        Args:
            labels: (n,) of this process's part of the whole batch.
            seed: of the step; the same in all processes.
        """
        if self.shard:
            self.shard.draw(cast(ScoringHead, self.head), labels, seed)

    def trained_head(self) -> list[nn.Parameter]:
        """The classifier's parameters that the optimizer is to move."""
        if self.shard:
            return self.shard.trained(cast(ScoringHead, self.head))
        return list(self.head.parameters())

    def spread_names(self) -> list[str]:
        """Names of the parameters of which this process holds some rows alone."""
        return [f"head.{name}" for name, _ in self.head.named_parameters()] if self.shard else []


@dataclass(kw_only=True)
class Start:
    """Where a run starts from."""

    stage: str
    content: ModelFile | None = None
    """The model given with `--from`; None for a run from scratch."""

    @property
    def classes(self) -> list[str] | None:
        """Identities of the classifier that is kept, None where a fresh one is built."""
        if self.stage != "continue" or self.content is None:
            return None
        return self.content.record.class_names

    @property
    def training(self) -> dict[str, Any]:
        """What the model's file says of its training; empty for a run from scratch."""
        return self.content.record.training if self.content else {}

    def split_seed(self, own: int) -> int:
        """What draws who is held out: as for the classifier that is kept, else a seed of one's own.

        So the pictures that it was not trained on are the ones that judge it further on.
        """
        known = self.training.get("split_seed") if self.stage == "continue" else None
        return known if isinstance(known, int) else own


def settle_stage(options: TrainOptions, identities: set[str]) -> Start:
    """Decide the stage: as given, else by whether the model knows most of the people.

    Args:
        identities: of the pictures to train on.

    Raises:
        InputError: stage, model and data contradict each other.
    """
    if options.from_model is None:
        if options.stage in ("continue", "finetune"):
            raise InputError(f"--stage {options.stage} starts from a model; give --from MODEL")
        return Start(stage="pretrain")
    if options.stage == "pretrain":
        raise InputError("--stage pretrain starts from nothing; drop --from, or give another stage")
    content = _model_of_ours(options.from_model)
    known = identities & set(content.record.class_names or [])
    has_head = bool(content.head)
    stage = options.stage
    if stage is None:
        stage = "continue" if has_head and 2 * len(known) >= len(identities) else "finetune"
    if stage == "continue" and (not has_head or len(known) < 2):
        raise InputError(
            f"--stage continue keeps the classifier of {options.from_model}, which knows "
            f"{len(known) if has_head else 0} of {len(identities)} identities in {options.data}; "
            "give --stage finetune"
        )
    return Start(stage=stage, content=content)


def _model_of_ours(path: Path) -> ModelFile:
    """Read a model to start from.

    Raises:
        InputError: the file is missing, damaged, or no model that can be trained on.
    """
    kind = kind_of(path)
    if kind == "onnx":
        raise InputError(
            f"--from {path}: an ONNX graph cannot be trained on; give the .safetensors file of a "
            "model that faceidx trained or imported"
        )
    if kind == "weights":
        raise InputError(
            f"--from {path} holds weights of another project; bring them in by `faceidx models "
            "import` first"
        )
    return read_model(path)


def fixed_settings(start: Start, options: TrainOptions) -> dict[str, Any]:
    """What the weights of the model that a run starts from fix of a recipe, by name.

    Raises:
        InputError: an option was given that contradicts the model.
    """
    if start.content is None:
        return {}
    record = start.content.record
    height, width = record.preprocessing.image_size
    facts: dict[str, Any] = {
        "arch": record.arch,
        "image_size": height,
        "embedding_dim": record.embedding_dim,
    }
    if start.stage == "continue" and record.head:
        facts["loss"] = record.head.loss
        if record.head.loss in COSINE_HEADS:
            facts["scale"] = record.head.scale
    if height != width:
        raise InputError(f"{options.from_model} takes {width}x{height} pictures; give a square one")
    for name, value in facts.items():
        given = getattr(options, name)
        if given is not None and given != value:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} {given}: {options.from_model} has {value}; drop --{flag}")
    margin = record.training.get("margin")
    if "scale" in facts and options.margin is None and isinstance(margin, float):
        facts["margin"] = margin  # its classifier is used to it, but may learn another
    return facts


def build_network(
    recipe: Recipe,
    start: Start,
    preprocessing: Preprocessing,
    classes: int,
    rows: RowRange | None = None,
) -> TrainingNetwork:
    """Build what the stage asks for: fresh, continued, or a known backbone under a fresh head.

    Args:
        rows: which of the classes this process holds, where they are spread or sampled.
    """
    if start.content is None:
        backbone = create_backbone(
            recipe.arch,
            embedding_dim=recipe.embedding_dim,
            image_size=preprocessing.image_size,
        )
    else:
        backbone = build_backbone(start.content, "the model given with --from")
    options: dict[str, Any] = {
        "dim": recipe.embedding_dim,
        "label_smoothing": recipe.label_smoothing,
        "scale": recipe.scale,
        "margin": recipe.margin,
    }
    head: nn.Module
    if rows is None:
        head = create_head(recipe.loss, classes=classes, **options)
    else:
        head = create_shard(recipe.loss, rows=rows, **options)
    # What a backbone does not learn the classifier does not look at.
    learned = getattr(backbone, "learned_dim", recipe.embedding_dim)
    with torch.no_grad():
        cast(torch.Tensor, head.weight)[..., learned:] = 0
    if start.stage == "continue" and start.content is not None:
        head.load_state_dict(_rows_of(start.content.head, head, rows))
    if "angle" in recipe.aux and recipe.loss == "subcenter-arcface":
        raise InputError("--aux angle needs one weight an identity; give another --loss")
    if "angle" in recipe.aux and rows:
        raise InputError(
            "--aux angle needs all weights of the classifier in each process; give --head-shards "
            "off and --sample-rate 1"
        )
    auxiliaries = {
        name: create_auxiliary(name, dim=recipe.embedding_dim, classes=classes)
        for name in recipe.aux
    }
    shard = ClassShard(cast(ScoringHead, head), rows, recipe.sample_rate) if rows else None
    network = TrainingNetwork(backbone, head, auxiliaries, preprocessing, shard)
    for module in network.modules():
        if isinstance(module, AngleLoss):
            module.parts = min(recipe.accumulate, recipe.batch_size)
        if isinstance(module, (CosineHead, CenterLoss, AngleLoss)):
            module.view_dim = getattr(backbone, "view_dim", None)
    return network


def _rows_of(
    whole: dict[str, torch.Tensor], head: nn.Module, rows: RowRange | None
) -> dict[str, torch.Tensor]:
    """Of a whole classifier's weights those that a head of some of its rows takes."""
    if rows is None:
        return whole
    cut = {name for name, _ in head.named_parameters()}
    return {n: t[rows.first : rows.last] if n in cut else t for n, t in whole.items()}


def head_record(network: TrainingNetwork, recipe: Recipe) -> Head:
    """How the head turns embeddings into logits once no margin is applied."""
    return Head(loss=recipe.loss, scale=float(getattr(network.head, "scale", 1.0)))


def model_file(
    network: TrainingNetwork,
    recipe: Recipe,
    class_names: list[str],
    training: dict[str, object],
    template: str | None = None,
) -> ModelFile:
    """The network as the content of a model file; auxiliary losses stay behind."""
    record = ModelRecord(
        arch=recipe.arch,
        embedding_dim=recipe.embedding_dim,
        preprocessing=network.preprocessing,
        template=template,
        class_names=class_names,
        head=head_record(network, recipe),
        training=training,
    )
    head = cast(dict[str, torch.Tensor], network.head.state_dict())
    spread = {}
    if network.shard:
        cut = [name for name, _ in network.head.named_parameters()]
        spread = {n: SpreadRows(mine=head.pop(n), rows=network.shard.rows) for n in cut}
    return ModelFile(
        record=record,
        backbone=cast(dict[str, torch.Tensor], network.backbone.state_dict()),
        head=head,
        spread=spread,
    )
