"""RandAugment against torchvision's own class, operation by operation."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from faceidx.training.randaugment import OPERATIONS, rand_augment


@pytest.fixture
def pictures() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 20, 26), generator=rng, dtype=torch.uint8)


def test_the_operations_are_torchvisions_in_its_order() -> None:
    assert list(OPERATIONS) == list(v2.RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("negative", [False, True])
def test_an_operation_is_what_torchvision_does_to_a_picture(
    name: str, negative: bool, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = v2.RandAugment(num_ops=1)
    choice = (name, theirs._AUGMENTATION_SPACE[name])
    monkeypatch.setattr(theirs, "_get_random_item", lambda _: choice)
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.0 if negative else 1.0))
    number = torch.full((4, 1), list(OPERATIONS).index(name))
    ours = rand_augment(pictures, number, torch.full((4, 1), negative))
    for picture, changed in zip(pictures, ours, strict=True):
        # Its magnitudes are rounded to float32, so now and then a value rounds the other way.
        assert (changed.int() - theirs(picture).int()).abs().max() <= 1


def test_each_picture_gets_its_own_operations_one_after_another(pictures: torch.Tensor) -> None:
    rng = torch.Generator().manual_seed(1)
    numbers = torch.randint(0, len(OPERATIONS), (4, 3), generator=rng)
    signs = torch.rand(4, 3, generator=rng) < 0.5
    together = rand_augment(pictures, numbers, signs)
    for row in range(4):
        one = pictures[row : row + 1]
        for number, sign in zip(numbers[row].tolist(), signs[row].tolist(), strict=True):
            one = list(OPERATIONS.values())[number](one, -1.0 if sign else 1.0)
        assert torch.equal(together[row], one[0])
