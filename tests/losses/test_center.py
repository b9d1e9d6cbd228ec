from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faceidx.losses.center import CenterLoss
from tests.processes import run_together

_CLASSES, _DIM = 5, 4
# Two of class 0, three of class 3, one of class 1; classes 2 and 4 are not seen.
_LABELS = [0, 3, 3, 1, 0, 3]


def _embeddings(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(_LABELS), _DIM, generator=generator).to(dtype)


def _centers() -> torch.Tensor:
    return torch.randn(_CLASSES, _DIM, generator=torch.Generator().manual_seed(1))


def _loss(alpha: float = 0.5) -> CenterLoss:
    loss = CenterLoss(_DIM, _CLASSES, alpha)
    loss.centers = _centers()
    return loss


def _naive(
    rows: list[list[float]], labels: list[int], centers: list[list[float]], alpha: float
) -> tuple[float, list[list[float]], list[list[float]]]:
    """Value and gradient of equation 2 over the batch's mean, and the centres after equation 4."""
    count = len(rows)
    value = 0.0
    gradient = []
    for x, y in zip(rows, labels, strict=True):
        value += sum((a - c) ** 2 for a, c in zip(x, centers[y], strict=True)) / 2 / count
        gradient.append([(a - c) / count for a, c in zip(x, centers[y], strict=True)])
    moved = []
    for j, center in enumerate(centers):
        own = [x for x, y in zip(rows, labels, strict=True) if y == j]
        delta = [sum(c - x[d] for x in own) / (1 + len(own)) for d, c in enumerate(center)]
        moved.append([c - alpha * d for c, d in zip(center, delta, strict=True)])
    return value, gradient, moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_value_gradient_and_centres_are_those_of_the_paper(dtype: torch.dtype) -> None:
    embeddings = _embeddings(dtype).requires_grad_()
    loss = _loss()
    value = loss(embeddings, torch.tensor(_LABELS))
    value.backward()
    expected, gradient, moved = _naive(
        embeddings.tolist(), _LABELS, _centers().tolist(), loss.alpha
    )
    assert value.item() == pytest.approx(expected, rel=1e-6)
    # The gradient comes back in the embeddings' own type, and is as exact as that is.
    rounding = 2**-8 if dtype == torch.bfloat16 else 1e-6
    assert embeddings.grad is not None
    torch.testing.assert_close(
        embeddings.grad.double(), torch.tensor(gradient, dtype=torch.float64), rtol=rounding, atol=0
    )
    torch.testing.assert_close(loss.centers, torch.tensor(moved), rtol=1e-5, atol=1e-6)


def test_the_centre_of_an_unseen_class_stands_still() -> None:
    loss = _loss()
    loss(_embeddings(), torch.tensor(_LABELS))
    assert torch.equal(loss.centers[[2, 4]], _centers()[[2, 4]])
    assert not (loss.centers[[0, 1, 3]] == _centers()[[0, 1, 3]]).any()


def test_outside_of_training_no_centre_moves() -> None:
    loss = _loss().eval()
    loss(_embeddings(), torch.tensor(_LABELS))
    assert torch.equal(loss.centers, _centers())


def test_centres_reach_the_mean_of_embeddings_that_stand_still() -> None:
    loss, embeddings = _loss(), _embeddings()
    for _ in range(200):
        loss(embeddings, torch.tensor(_LABELS))
    rows = torch.tensor(_LABELS) == 3
    torch.testing.assert_close(loss.centers[3], embeddings[rows].mean(0))


def test_views_that_were_not_looked_at_neither_pull_nor_are_pulled() -> None:
    """As of the hybrid, whose networks see half of the pictures each: they halved the centres."""
    loss = CenterLoss(4, 2)
    loss.view_dim = 2
    views = torch.tensor([[1.0, -3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 5.0]], requires_grad=True)
    for _ in range(60):
        value = loss(views, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(loss.centers, torch.tensor([[1.0, -3.0, 2.0, 5.0], [0.0] * 4]))
    assert value.item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        views[0, 0] += 1
    loss(views, torch.zeros(2, dtype=torch.int64)).backward()
    torch.testing.assert_close(views.grad, torch.tensor([[0.5, 0, 0, 0], [0, 0, 0, 0]]))


def test_centres_are_kept_in_the_state_but_are_no_parameters() -> None:
    loss = _loss()
    assert list(loss.parameters()) == []
    assert list(loss.state_dict()) == ["centers"]


def _moved(number: int, parts: list[slice]) -> torch.Tensor:
    loss = _loss()
    for _ in range(2):
        loss(_embeddings()[parts[number]], torch.tensor(_LABELS[parts[number]]))
    return loss.centers


@pytest.mark.parametrize("cut", [3, 2])
def test_two_processes_move_the_centres_as_one_with_the_whole_batch(
    cut: int, tmp_path: Path
) -> None:
    # Class 3 has pictures in both parts of the batch, so parts on their own would differ.
    found = run_together(2, _moved, tmp_path, [slice(0, cut), slice(cut, 6)])
    loss = _loss()
    for _ in range(2):
        loss(_embeddings(), torch.tensor(_LABELS))
    for centers in found:
        torch.testing.assert_close(centers, loss.centers, rtol=1e-6, atol=1e-7)
