"""Our own models and others' weights, run by torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from faceidx.errors import InputError
from faceidx.images.keys import escape_key
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import FaceModel
from faceidx.models.file import ModelFile, backbone_digest
from faceidx.models.record import Head
from faceidx.models.registry import create_backbone
from faceidx.models.torch_runner import Runner, normalized


@dataclass(kw_only=True)
class TorchModel(FaceModel):
    """A network in evaluation mode on a device."""

    backbone: nn.Module
    """(N, 3, H, W) to (N, D), in float32 on the CPU."""
    runner: Runner

    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        return self.runner(pictures)

    def begin(self, pictures: np.ndarray, *, flip: bool = False) -> Callable[[], np.ndarray]:
        return self.runner.begin(pictures, flip=flip)


def load_torch_model(content: ModelFile, path: Path, *, device: str) -> TorchModel:
    """Load what was read from a model file for inference in float32; `path` names the file.

    Raises:
        InputError: its weights do not fit its architecture.
    """
    record = content.record
    _check_head(content, str(path))
    backbone = build_backbone(content, str(path)).eval()
    runner = Runner(backbone, record.preprocessing, device=device, precision="fp32")
    return TorchModel(
        name=escape_key(path.name),
        arch=record.arch,
        embedding_dim=record.embedding_dim,
        preprocessing=record.preprocessing,
        weights=backbone_digest(content, str(path)),
        engine="torch",
        device=device,
        precision="fp32",
        template=record.template,
        class_names=record.class_names,
        training=record.training,
        head=record.head,
        head_weights=content.head,
        best_batch=runner.best_batch,
        backbone=backbone,
        runner=runner,
    )


def _check_head(content: ModelFile, source: str) -> None:
    """Raise `InputError` where a classifier's weights and its class names do not go together."""
    if not content.head:
        return
    record, weight = content.record, content.head.get("weight")
    wanted = (len(record.class_names or []), record.embedding_dim)
    # A class has one weight, or several, one behind another.
    shape = () if weight is None else (*weight.shape[:1], *weight.shape[-1:])
    if record.head is None or weight is None or weight.ndim > 3 or shape != wanted:
        raise InputError(f"{source}: its classifier does not fit its record of {wanted[0]} classes")


def build_backbone(content: ModelFile, source: str) -> nn.Module:
    """Build the backbone of a model file with its weights; `source` names the file in errors.

    Raises:
        InputError: no such architecture; weights are missing, too many or of another shape.
    """
    record = content.record
    try:
        backbone = create_backbone(
            record.arch,
            embedding_dim=record.embedding_dim,
            image_size=record.preprocessing.image_size,
        )
        backbone.load_state_dict(content.backbone)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: its weights do not fit {record.arch} ({reason})") from None
    return backbone


def normalize_pictures(pictures: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn pictures into a backbone's input, on the device that they are on.

    Args:
        pictures: (N, H, W, 3) RGB in 0..255, of any number type.

    Returns:
        (N, 3, H, W) float32 in channels_last layout, in the model's colour order.
    """
    mean = torch.tensor(preprocessing.mean, device=pictures.device)
    std = torch.tensor(preprocessing.std, device=pictures.device)
    return normalized(pictures, mean, std, bgr=preprocessing.color == "bgr")


def class_logits(
    embeddings: torch.Tensor, weights: dict[str, torch.Tensor], head: Head
) -> torch.Tensor:
    """Logits at inference, where no head applies a margin.

    Args:
        embeddings: (N, D), not normalised.
        weights: `weight` (classes, D), or (classes, K, D) with K weights a class of which the
            nearest counts, and, for a plain linear head, `bias` (classes).

    Returns:
        (N, classes).
    """
    if head.loss == "softmax":
        return F.linear(embeddings, weights["weight"], weights.get("bias"))
    directions = F.normalize(weights["weight"], dim=-1)
    if head.loss == "sphereface":  # its logits grow with the embedding's length
        return F.linear(embeddings, directions)
    cosines = F.linear(F.normalize(embeddings), directions.flatten(0, -2))
    if directions.ndim == 3:
        cosines = cosines.unflatten(1, directions.shape[:-1]).amax(2)
    return cosines * head.scale
