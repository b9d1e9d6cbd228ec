from __future__ import annotations

import numpy as np
import pytest
import torch

from faceidx.training import discriminant
from faceidx.training.discriminant import discriminants, leading_directions


def _people(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of people who differ in some directions and vary in all, unequally many of each."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 6, count))
    homes = np.zeros((6, length))
    homes[:, :4] = rng.normal(0, 3, (6, 4))
    noise = rng.normal(0, rng.uniform(0.5, 2, length), (count, length))
    return torch.from_numpy(homes[labels] + noise).float(), torch.from_numpy(labels)


@pytest.mark.parametrize(("count", "length"), [(90, 20), (40, 70)])
def test_discriminants_solve_fishers_problem(
    count: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against scipy's generalised eigenvalues, with more rows than numbers and with fewer."""
    from scipy.linalg import eigh

    monkeypatch.setattr(discriminant, "_BLOCK", 16)  # several, the last one not full
    rows, labels = _people(count, length)
    weight, bias = discriminants(rows, labels, 3)
    x, y = rows.double().numpy(), labels.numpy()
    centres = np.stack([x[y == k].mean(0) for k in np.unique(y)])
    within = sum((x[y == k] - c).T @ (x[y == k] - c) for k, c in zip(np.unique(y), centres))  # noqa: B905
    within = within + discriminant._RIDGE * np.trace(within) * np.eye(length)
    apart = centres - x.mean(0)
    values, vectors = eigh(apart.T @ apart, within)
    expected = vectors[:, ::-1][:, :3].T
    signs = np.sign((expected * weight.numpy()).sum(1, keepdims=True))
    np.testing.assert_allclose(weight.numpy(), expected * signs, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(bias.numpy(), -(weight.numpy() @ x.mean(0)), rtol=1e-3, atol=1e-3)
    assert values[-1] > 0


def test_beyond_the_number_of_people_directions_are_zero() -> None:
    rows, labels = _people(60, 20)
    weight, _ = discriminants(rows, labels, 12)
    lengths = weight.norm(dim=1)
    assert (lengths[:5] > 0).all() and (lengths[5:] == 0).all()


def test_pictures_that_are_all_the_same_give_numbers() -> None:
    weight, bias = discriminants(torch.ones(6, 5), torch.tensor([0, 0, 1, 1, 2, 2]), 3)
    assert torch.isfinite(weight).all() and torch.isfinite(bias).all()


def test_leading_directions_keep_most_of_the_inner_products() -> None:
    rows, _ = _people(50, 12)
    directions = leading_directions(rows, 5)
    torch.testing.assert_close(directions @ directions.T, torch.eye(5), atol=1e-5, rtol=0.0)
    singular = torch.linalg.svdvals(rows)
    kept = torch.linalg.svdvals(rows @ directions.T)
    torch.testing.assert_close(kept, singular[:5], rtol=1e-4, atol=1e-4)
