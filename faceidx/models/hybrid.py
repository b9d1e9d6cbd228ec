"""Two networks that look at a face in different ways, and a description in closed form.

For sets of some thousand pictures. A network learns such a set by heart in a few passes, whatever
its size; then more training gains nothing, while others that err on different pairs do. For the
same reason a network must tell people apart from stripes of a face too, each by itself: else what
one part gives away the others need not learn (Sun et al. 2018, "Beyond Part Models",
arXiv:1711.09349, who cut people on foot into stripes).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from faceidx.models.descriptor import LONGEST, SIDE, Descriptor

# The part of a face of 112 pixels, cut to the usual ArcFace template, that holds eyes, nose and
# upper lip.
_INNER = (slice(36, 92), slice(28, 84))


def _whole(faces: torch.Tensor) -> torch.Tensor:
    return faces


def _halved(faces: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(faces, 2)


def _inner(faces: torch.Tensor) -> torch.Tensor:
    return faces[:, :, _INNER[0], _INNER[1]]


def _doubled_inner(faces: torch.Tensor) -> torch.Tensor:
    return F.interpolate(_inner(faces), (SIDE, SIDE), mode="bilinear")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How much a hybrid computes."""

    looks: tuple[Callable[[torch.Tensor], torch.Tensor], ...]
    """What each network sees of (N, 3, 112, 112) faces."""
    side: int
    """Of what they see, in pixels."""
    widths: tuple[int, ...]
    """Channels of a network's first layer, and of its four blocks."""
    described: float
    """What the closed form weighs beside one network, as a factor of its length."""


# For CPUs: the inner face unscaled costs what the whole face at half the size does.
NARROW = Kind(looks=(_halved, _inner), side=56, widths=(32, 32, 64, 128, 256), described=1.75)
# For GPUs: what is small in a face tells people apart too, and costs eight times as much.
WIDE = Kind(looks=(_whole, _doubled_inner), side=112, widths=(64, 64, 128, 256, 512), described=1.0)

_NETWORKS = len(NARROW.looks)
# What a network sees is cut into so many stripes, one below another.
_STRIPES = 4
# Views that a network gives: one of all it sees, and one of each stripe, which weigh as much
# together, so that the square of a network's length is 2.
_VIEWS = 1 + _STRIPES
_WEIGHTS = (1.0, *[_STRIPES**-0.5] * _STRIPES)
_SHARES = _NETWORKS + 1
# At the most the closed form's share is full: views of equal size leave it up to a number a view.
DIMS = (_SHARES * _VIEWS, _SHARES * (LONGEST - _NETWORKS * _VIEWS))
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

    def __init__(
        self, embedding_dim: int, image_size: tuple[int, int], kind: Kind = NARROW
    ) -> None:
        super().__init__()
        self._kind = kind
        self.view_dim = embedding_dim // (_SHARES * _VIEWS)
        """Numbers of one view, which a classifier can take by itself."""
        self.networks = nn.ModuleList(_Network(kind, self.view_dim) for _ in kind.looks)
        self.learned_dim = _NETWORKS * _VIEWS * self.view_dim
        """Numbers at the front of the embedding that learn; the rest is the closed form's."""
        self.descriptor = Descriptor(embedding_dim - self.learned_dim)
        self._resized = image_size != (SIDE, SIDE)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        faces = self.faces(pictures)
        if self.training:
            return self._one_each(faces)
        return self.judged(faces, self.descriptor(faces))

    def judged(self, faces: torch.Tensor, described: torch.Tensor) -> torch.Tensor:
        """The embeddings of (N, 3, 112, 112) faces of which the descriptor gave `described`."""
        parts = [_both_ways(network, look(faces)) for network, look in self._pairs()]
        views = torch.cat(parts, dim=1).unflatten(1, (-1, self.view_dim))
        weights = views.new_tensor(_WEIGHTS * _NETWORKS)[:, None]
        units = (weights * F.normalize(views, dim=2)).flatten(1)
        share = self._kind.described * math.sqrt(2)
        lengths = views.norm(dim=2).mean(1, keepdim=True) / weights.sum()
        return lengths * torch.cat([units, share * described], dim=1)

    def faces(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, 112, 112)."""
        if not self._resized:
            return pictures
        return F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True)

    def _pairs(self) -> list[tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]]:
        return list(zip(self.networks, self._kind.looks, strict=True))

    def _one_each(self, pictures: torch.Tensor) -> torch.Tensor:
        """Each picture through one network, by its place in the batch."""
        count, rows = _NETWORKS, []
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


def _both_ways(network: nn.Module, seen: torch.Tensor) -> torch.Tensor:
    """A mirrored face is the same face: the mean of both halves what either errs by."""
    halves = network(torch.cat([seen, seen.flip(3)])).chunk(2)
    return (halves[0] + halves[1]) / 2  # type: ignore[no-any-return]


class _Network(nn.Module):
    """(N, 3, side, side) to (N, 5 D), of all and of each stripe: a ResNet-10."""

    def __init__(self, kind: Kind, dim: int) -> None:
        super().__init__()
        first, last = kind.widths[0], kind.widths[-1]
        layers: list[nn.Module] = [
            nn.Conv2d(3, first, 3, 1, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
        for inputs, outputs in itertools.pairwise(kind.widths):
            halve = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs)
            )
            layers.append(BasicBlock(inputs, outputs, 2, halve))
        self.body = nn.Sequential(*layers)
        self.views = nn.ModuleList(
            nn.Sequential(nn.Linear(last, dim, bias=False), nn.BatchNorm1d(dim))
            for _ in range(_VIEWS)
        )
        self._stripes = _stripes(-(-kind.side // 2 ** (len(kind.widths) - 1)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.body(x).mean(3)
        seen = [rows.mean(2), *(rows[:, :, stripe].mean(2) for stripe in self._stripes)]
        views = [view(part) for view, part in zip(self.views, seen, strict=True)]
        return torch.cat(views, dim=1)


def _stripes(rows: int) -> list[slice]:
    """The rows of a map that each stripe has; two share one that lies between them."""
    return [slice(n * rows // _STRIPES, -(-(n + 1) * rows // _STRIPES)) for n in range(_STRIPES)]
