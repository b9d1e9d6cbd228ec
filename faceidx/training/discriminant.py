"""Linear discriminants in closed form: the projections of a descriptor, fitted to labelled faces.

Fisher's discriminant (Belhumeur et al. 1997, "Eigenfaces vs. Fisherfaces", IEEE TPAMI 19(7)) with a
ridge on the scatter within people (Friedman 1989, "Regularized Discriminant Analysis", JASA
84(405)), which does what fewer principal components would: there are more numbers than pictures.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from faceidx.models.descriptor import REGION_DIM, Descriptor

# The ridge, as a share of the scatter's trace.
_RIDGE = 3e-4
_LEAST = 1e-12
# Rows of which inner products are taken at a time: enough for the processor's full speed.
_BLOCK = 1024
# A direction in which people differ by this share of the first one's scatter is none.
_NOTHING = 1e-6


@torch.no_grad()
def fit_descriptor(
    descriptor: Descriptor, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Set a descriptor's projections, by pictures of known people.

    Args:
        batches: of (n, 3, 112, 112) pictures in -1..1 and (n,) int64 numbers of the people.
    """
    described = [(descriptor.maps(pictures), labels) for pictures, labels in batches]
    labels = torch.cat([labels for _, labels in described])
    maps = [torch.cat(parts) for parts in zip(*(maps for maps, _ in described), strict=True)]
    del described
    rows = []
    for region, part in zip(descriptor.regions, descriptor.parts(maps), strict=True):
        weight, bias = discriminants(part, labels, REGION_DIM)
        region.load_state_dict({"weight": weight, "bias": bias})
        rows.append(F.normalize(F.linear(part, weight, bias)))
    merged = leading_directions(torch.cat(rows, dim=1), descriptor.merge.out_features)
    descriptor.merge.load_state_dict({"weight": merged})


def discriminants(
    rows: torch.Tensor, labels: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The directions in which people differ most beside what pictures of one person differ.

    Args:
        rows: (N, D) float32.
        labels: (N,) int64, a number a person.
        dim: directions wanted.

    Returns:
        (dim, D) weight and (dim,) bias: `weight @ row + bias` is centred, and white within people.
        Directions beyond the number of people are zero.
    """
    mean = rows.mean(0)
    _, labels = labels.unique(return_inverse=True)
    counts = labels.bincount()
    centred = rows - mean
    centres = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, labels, centred)
    centres /= counts[:, None]
    centred -= centres[labels]  # from here on within people
    ridge = _RIDGE * centred.square().sum().clamp(min=_LEAST)
    solved = _solve(centred, ridge, centres.T)
    # Of the many directions those among people: eigenvectors of a (people, people) matrix.
    spread, vectors = torch.linalg.eigh((centres @ solved).double())
    # k people span k - 1 directions; of the others rounding alone is left.
    kept = min(dim, len(counts) - 1, int((spread > _NOTHING * spread[-1]).sum()))
    vectors = vectors.flip(1)[:, :kept] / spread.flip(0)[:kept].sqrt()
    weight = rows.new_zeros(dim, rows.shape[1])
    weight[:kept] = (solved @ vectors.float()).T
    return weight, -weight @ mean


def _solve(within: torch.Tensor, ridge: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(W^T W + ridge I)^-1 target, for (N, D) W and (D, k) target, by the smaller system."""
    count, length = within.shape
    if length <= count:
        factor = torch.linalg.cholesky(_ridged(within.T @ within, ridge))
        return torch.cholesky_solve(target, factor)
    # Woodbury's identity.
    factor = torch.linalg.cholesky(_ridged(_inner_products(within), ridge))
    inner = torch.cholesky_solve(within @ target, factor)
    return (target - within.T @ inner) / ridge


def _inner_products(rows: torch.Tensor) -> torch.Tensor:
    """rows @ rows.T, whose upper half is the lower one's mirror image."""
    products = rows.new_empty(len(rows), len(rows))
    blocks = [slice(i, i + _BLOCK) for i in range(0, len(rows), _BLOCK)]
    for number, block in enumerate(blocks):
        for other in blocks[: number + 1]:
            products[block, other] = rows[block] @ rows[other].T
            if other != block:
                products[other, block] = products[block, other].T
    return products


def _ridged(square: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
    square.diagonal().add_(ridge)
    return square


def leading_directions(rows: torch.Tensor, dim: int) -> torch.Tensor:
    """(N, D) rows to (dim, D) orthonormal ones that keep most of their inner products."""
    _, vectors = torch.linalg.eigh((rows.T @ rows).double())
    return vectors.flip(1)[:, :dim].T.float()
