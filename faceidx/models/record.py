"""What a model file says of itself: the JSON record in its metadata, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.images.preprocess import Preprocessing

FORMAT = "faceidx-model"
VERSION = 1


@dataclass(kw_only=True)
class Head:
    """The classification head that a model was trained with."""

    loss: str
    """Name in the registry of losses; it says how weights become logits."""
    scale: float = 1.0
    """Factor of the cosine logits; 1 where the head is a plain linear layer."""


@dataclass(kw_only=True)
class ModelRecord:
    """Everything that is needed to use a model besides its weights."""

    arch: str
    embedding_dim: int
    preprocessing: Preprocessing
    template: str | None = None
    """Alignment template of the faces it was trained on; None where that is not known."""
    class_names: list[str] | None = None
    """Identities of the classifier's outputs, None where the file holds no classifier."""
    head: Head | None = None
    training: dict[str, Any] = field(default_factory=dict)
    """Summary of how the model came about, for people and for `models info`."""

    def to_json(self) -> str:
        """The record as the text that the file's metadata holds."""
        values = {
            "format": FORMAT,
            "version": VERSION,
            "arch": self.arch,
            "embedding_dim": self.embedding_dim,
            **self.preprocessing.to_dict(),
            "template": self.template,
            "class_names": self.class_names,
            "head": vars(self.head) if self.head else None,
            "training": self.training,
        }
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelRecord:
        """Read a record back; `source` names the file in errors.

        Raises:
            InputError: the text is no record of ours, damaged, or of a newer version.
        """
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise ValueError(f"it is of the format {values['format']!r}")
            if values["version"] > VERSION:
                raise InputError("it was written by a newer faceidx; update to read it")
            return cls(
                arch=str(values["arch"]),
                embedding_dim=int(values["embedding_dim"]),
                preprocessing=Preprocessing.from_dict(values),
                template=values["template"],
                class_names=_names(values["class_names"]),
                head=Head(**values["head"]) if values["head"] else None,
                training=dict(values["training"]),
            )
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source}: its faceidx record is damaged ({error!r})") from None


def _names(values: object) -> list[str] | None:
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        raise TypeError("class_names is no list of names")
    return values


def weights_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of a set of weights, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def fingerprint(
    weights: str, preprocessing: Preprocessing, template: str | None, *, flip: bool
) -> str:
    """SHA-256 that two embeddings must share to be comparable.

    It covers the digest of the backbone's weights, input size, colour order, mean, std, alignment
    template and whether the embeddings of a picture and of its mirror image are added.
    """
    facts = {
        "weights": weights,
        **preprocessing.to_dict(),
        "template": template,
        "flip": flip,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
