"""Random changes of pictures."""

from __future__ import annotations

import pytest
import torch

from faceidx.errors import InputError
from faceidx.training.augment import STRENGTHS, Chance, Strength, augment, strength_named


@pytest.fixture
def pictures() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (12, 24, 20, 3), generator=rng, dtype=torch.uint8)


def _chance(seed: int = 1, part: slice = slice(0, 12)) -> Chance:
    return Chance(seed, 12, part)


def test_none_changes_nothing(pictures: torch.Tensor) -> None:
    assert torch.equal(augment(pictures, STRENGTHS["none"], _chance()), pictures.float())


def test_light_mirrors_some_and_changes_nothing_else(pictures: torch.Tensor) -> None:
    changed = augment(pictures, STRENGTHS["light"], _chance())
    same = (changed == pictures.float()).flatten(1).all(1)
    mirrored = (changed == pictures.float().flip(2)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 0 < int(mirrored.sum()) < 12


@pytest.mark.parametrize("name", ["light", "medium", "strong"])
def test_shape_and_range_are_kept(pictures: torch.Tensor, name: str) -> None:
    changed = augment(pictures, STRENGTHS[name], _chance())
    assert changed.shape == pictures.shape and changed.dtype == torch.float32
    assert float(changed.min()) >= 0 and float(changed.max()) <= 255


@pytest.mark.parametrize("name", ["light", "medium", "strong"])
def test_a_process_changes_its_pictures_as_one_process_would(
    pictures: torch.Tensor, name: str
) -> None:
    whole = augment(pictures, STRENGTHS[name], _chance())
    second_half = augment(pictures[6:], STRENGTHS[name], _chance(part=slice(6, 12)))
    assert torch.allclose(whole[6:], second_half, atol=1e-3)


def test_a_warp_without_strength_resamples_to_the_picture_itself(pictures: torch.Tensor) -> None:
    still = Strength(mirror=0.0, grey=1e-9)
    assert torch.allclose(augment(pictures, still, _chance()), pictures.float(), atol=1e-2)


def test_a_full_mirror_is_the_exact_mirror_image(pictures: torch.Tensor) -> None:
    always = Strength(mirror=1.0, grey=1e-9)
    changed = augment(pictures, always, _chance())
    assert torch.allclose(changed, pictures.float().flip(2), atol=1e-2)


def test_erasing_leaves_grey_rectangles(pictures: torch.Tensor) -> None:
    changed = augment(pictures, Strength(mirror=0.0, erase=1.0), _chance())
    grey = (changed == 127.5).all(3).flatten(1).float().mean(1)
    assert (grey > 0.01).all() and (grey < 0.25).all()


def test_an_unknown_strength_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="medium"):
        strength_named("extreme")
