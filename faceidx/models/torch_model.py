"""Our own models and others' weights, run by torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from faceidx.errors import InputError
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import FaceModel
from faceidx.models.file import ModelFile, backbone_digest
from faceidx.models.record import Head
from faceidx.models.registry import create_backbone

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True)
class TorchModel(FaceModel):
    """A backbone, and its classifier where the file holds one, in evaluation mode on a device."""

    backbone: nn.Module
    head: Head | None
    head_weights: dict[str, torch.Tensor]

    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        batch = normalize_pictures(
            torch.from_numpy(pictures).to(self.device, non_blocking=True), self.preprocessing
        )
        dtype = _AUTOCAST.get(self.precision)
        kind = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=dtype is not None):
            embeddings: np.ndarray = self.backbone(batch).float().cpu().numpy()
        return embeddings

    def classify(self, embeddings: np.ndarray) -> np.ndarray:
        if self.head is None or "weight" not in self.head_weights:
            return super().classify(embeddings)
        with torch.inference_mode():
            logits = class_logits(
                torch.from_numpy(embeddings).to(self.device), self.head_weights, self.head
            )
            probabilities: np.ndarray = logits.softmax(1).cpu().numpy()
        return probabilities


def load_torch_model(content: ModelFile, path: Path, *, device: str, precision: str) -> TorchModel:
    """Load what was read from a model file for inference; `path` names the file.

    Raises:
        InputError: its weights do not fit its architecture.
    """
    record = content.record
    _check_head(content, str(path))
    backbone = build_backbone(content, str(path)).to(device).to(memory_format=torch.channels_last)
    return TorchModel(
        name=path.name,
        arch=record.arch,
        embedding_dim=record.embedding_dim,
        preprocessing=record.preprocessing,
        weights=backbone_digest(content, str(path)),
        engine="torch",
        device=device,
        precision=precision,
        template=record.template,
        class_names=record.class_names,
        training=record.training,
        backbone=backbone.eval(),
        head=record.head,
        head_weights={name: t.to(device) for name, t in content.head.items()},
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
    batch = pictures.permute(0, 3, 1, 2)  # NHWC seen as NCHW is channels_last already
    if preprocessing.color == "bgr":
        batch = batch.flip(1)
    mean = torch.tensor(preprocessing.mean, device=batch.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(preprocessing.std, device=batch.device).view(1, 3, 1, 1) * 255
    return (batch.to(torch.float32, memory_format=torch.channels_last) - mean) / std


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
