"""Two narrow networks that look at a face in different ways, and a description in closed form.

For sets of some thousand pictures. A network learns such a set by heart in a few passes, whatever
its size; then more training gains nothing, while others that err on different pairs do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from faceidx.models.descriptor import LONGEST, SIDE, Descriptor

_WIDTHS = (32, 32, 64, 128, 256)
# The part of a face of 112 pixels, cut to the usual ArcFace template, that holds eyes, nose and
# upper lip: seen unscaled it costs what the whole face at half the size does.
_INNER = (slice(36, 92), slice(28, 84))
# What the closed form weighs beside one network, as a factor of its length.
_DESCRIBED_WEIGHT = 1.75


def _whole(faces: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(faces, 2)


def _inner(faces: torch.Tensor) -> torch.Tensor:
    return faces[:, :, _INNER[0], _INNER[1]]


_LOOKS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (_whole, _inner)
_PARTS = len(_LOOKS) + 1
DIMS = (_PARTS, _PARTS * LONGEST)
"""The least and the most numbers of an embedding."""


class HybridFace(nn.Module):
    """(N, 3, H, W) pictures in -1..1 to (N, D) embeddings, not yet of unit length.

    While training, a picture goes through one of the networks, and the others' places in its
    embedding are zero: each learns by itself, and together they cost no more than one. Judging,
    every network sees the face and its mirror image, and their parts have the same length, the
    closed form's a greater one.

    Args:
        embedding_dim: D, shared out among the networks and the closed form.
        image_size: (height, width); pictures of another size than 112 are resized.
    """

    def __init__(self, embedding_dim: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        share = embedding_dim // _PARTS
        self.networks = nn.ModuleList(_Narrow(share) for _ in _LOOKS)
        self.learned_dim = share * len(_LOOKS)
        """Numbers at the front of the embedding that learn; the rest is the closed form's."""
        self.descriptor = Descriptor(embedding_dim - self.learned_dim)
        self._resized = image_size != (SIDE, SIDE)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        pictures = self.faces(pictures)
        if self.training:
            return self._one_each(pictures)
        parts = [self._both_ways(network, look(pictures)) for network, look in self._pairs()]
        lengths = torch.stack([part.norm(dim=1) for part in parts]).mean(0)[:, None] / len(parts)
        units = [F.normalize(part) for part in parts]
        described = _DESCRIBED_WEIGHT * self.descriptor(pictures)
        return lengths * torch.cat([*units, described], dim=1)

    def faces(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, 112, 112)."""
        if not self._resized:
            return pictures
        return F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True)

    def _pairs(self) -> list[tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]]:
        return list(zip(self.networks, _LOOKS, strict=True))

    @staticmethod
    def _both_ways(network: nn.Module, seen: torch.Tensor) -> torch.Tensor:
        """A mirrored face is the same face: the mean of both halves what either errs by."""
        halves = network(torch.cat([seen, seen.flip(3)])).chunk(2)
        return (halves[0] + halves[1]) / 2  # type: ignore[no-any-return]

    def _one_each(self, pictures: torch.Tensor) -> torch.Tensor:
        """Each picture through one network, by its place in the batch."""
        count, rows = len(_LOOKS), []
        if len(pictures) < 2 * count:  # a norm needs two pictures: all go through all
            parts = torch.cat([network(look(pictures)) for network, look in self._pairs()], dim=1)
            return F.pad(parts, (0, self._length() - self.learned_dim))
        share = self.learned_dim // count
        for number, (network, look) in enumerate(self._pairs()):
            part = network(look(pictures[number::count]))
            before = number * share
            rows.append(F.pad(part, (before, self._length() - before - share)))
        order = torch.cat([torch.arange(n, len(pictures), count) for n in range(count)])
        return torch.cat(rows)[order.argsort().to(pictures.device)]

    def _length(self) -> int:
        return self.learned_dim + self.descriptor.merge.out_features


class _Narrow(nn.Module):
    """(N, 3, 56, 56) to (N, D): ResNet-10 with half the usual widths."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        first = _WIDTHS[0]
        layers: list[nn.Module] = [
            nn.Conv2d(3, first, 3, 1, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
        for inputs, outputs in itertools.pairwise(_WIDTHS):
            halve = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs)
            )
            layers.append(BasicBlock(inputs, outputs, 2, halve))
        self.body = nn.Sequential(*layers)
        last = _WIDTHS[-1]
        self.project = nn.Identity() if dim == last else nn.Linear(last, dim, bias=False)
        self.out = nn.BatchNorm1d(dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.out(self.project(self.body(x).mean((2, 3))))
        return embedding
