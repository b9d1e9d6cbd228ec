"""What every engine offers: pictures in, embeddings out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from faceidx.errors import InputError
from faceidx.images.preprocess import Preprocessing
from faceidx.models.record import Head, fingerprint

if TYPE_CHECKING:
    from faceidx.models.fidelity import Fidelity

Compiled: TypeAlias = Literal[False, True, "onednn"]
"""Whether torch compiled a network before it ran it: by its own compiler, or as oneDNN's graph."""


@dataclass(kw_only=True)
class FaceModel(ABC):
    """A model ready to run on one device."""

    name: str
    """For people: the file's name, escaped as keys are."""
    arch: str
    embedding_dim: int
    preprocessing: Preprocessing
    weights: str
    """SHA-256 of the backbone's weights."""
    engine: str
    device: str
    precision: str
    template: str | None = None
    class_names: list[str] | None = None
    training: dict[str, object] = field(default_factory=dict)
    head: Head | None = None
    head_weights: dict[str, Any] = field(default_factory=dict)
    """Of the classifier, torch tensors on the CPU; empty where there is none."""
    compiled: Compiled = False
    """Bytes differ from those of the same engine uncompiled."""
    best_batch: int = 32
    """Pictures a batch, or a multiple of it, that keep the device busy."""
    fidelity: Fidelity | None = None
    """To float32, where it was measured."""
    rate: float | None = None
    """Pictures a second on its device, where that was measured."""

    @abstractmethod
    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        """Embed a batch without normalising.

        Args:
            pictures: (N, H, W, 3) uint8 RGB of the model's input size.

        Returns:
            (N, D) float32.
        """

    def embed(self, pictures: np.ndarray, *, flip: bool = False) -> np.ndarray:
        """Embed a batch, with `flip` adding the embeddings of the mirror images.

        Args:
            pictures: (N, H, W, 3) uint8 RGB of the model's input size.

        Returns:
            (N, D) float32, not yet of unit length.
        """
        embeddings = self.raw_embed(pictures)
        if flip:
            embeddings = embeddings + self.raw_embed(mirror(pictures))
        return embeddings

    def begin(self, pictures: np.ndarray, *, flip: bool = False) -> Callable[[], np.ndarray]:
        """As `embed`, but what is returned waits for the result: until then another can begin.

        So a GPU or a core that has done its part of a batch does not wait for the others.
        """
        rows = self.embed(pictures, flip=flip)
        return lambda: rows

    def classify(self, embeddings: np.ndarray) -> np.ndarray:
        """Class probabilities of embeddings as `raw_embed` gives them.

        Returns:
            (N, classes) float32, rows that add up to 1.

        Raises:
            InputError: the model holds no classifier.
        """
        if self.head is None or "weight" not in self.head_weights:
            raise InputError(f"{self.name} holds no classifier, only a backbone")
        import torch

        from faceidx.models.torch_model import class_logits

        with torch.inference_mode():
            logits = class_logits(torch.from_numpy(embeddings), self.head_weights, self.head)
            probabilities: np.ndarray = logits.softmax(1).numpy()
        return probabilities

    def fingerprint(self, *, flip: bool = False) -> str:
        """What must agree between embeddings for them to be comparable."""
        return fingerprint(self.weights, self.preprocessing, self.template, flip=flip)


def mirror(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) pictures, each mirrored."""
    return np.ascontiguousarray(pictures[:, :, ::-1])


def normalize(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale rows to unit length.

    Args:
        embeddings: (N, D).

    Returns:
        (N, D) float32 unit rows (a row of zeros stays zeros), and their (N,) float32 lengths.
    """
    norms = np.linalg.norm(embeddings.astype(np.float32, copy=False), axis=1)
    with np.errstate(invalid="ignore"):  # infinite rows become NaN
        units = embeddings / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
    return units.astype(np.float32, copy=False), norms.astype(np.float32, copy=False)
