"""Random changes of pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from faceidx.errors import InputError
from faceidx.training.augment import STRENGTHS, Chance, Strength, augment, strength_named

ALL = {
    **{name: s for name, s in STRENGTHS.items() if name != "none"},
    "everything": replace(
        STRENGTHS["strong"],
        crop=0.3,
        saturation=0.4,
        hue=0.1,
        blur=0.5,
        coarse=0.5,
        operations=2,
    ),
}


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


@pytest.mark.parametrize("name", list(ALL))
def test_shape_and_range_are_kept(pictures: torch.Tensor, name: str) -> None:
    changed = augment(pictures, ALL[name], _chance())
    assert changed.shape == pictures.shape and changed.dtype == torch.float32
    assert float(changed.min()) >= 0 and float(changed.max()) <= 255


@pytest.mark.parametrize("name", list(ALL))
def test_a_process_changes_its_pictures_as_one_process_would(
    pictures: torch.Tensor, name: str
) -> None:
    whole = augment(pictures, ALL[name], _chance())
    second_half = augment(pictures[6:], ALL[name], _chance(part=slice(6, 12)))
    assert torch.allclose(whole[6:], second_half, atol=1e-3)


def test_a_warp_without_strength_resamples_to_the_picture_itself(pictures: torch.Tensor) -> None:
    still = Strength(mirror=0.0, shift=1e-9)
    assert torch.allclose(augment(pictures, still, _chance()), pictures.float(), atol=1e-2)


def test_a_full_mirror_is_the_exact_mirror_image(pictures: torch.Tensor) -> None:
    always = Strength(mirror=1.0, shift=1e-9)
    changed = augment(pictures, always, _chance())
    assert torch.allclose(changed, pictures.float().flip(2), atol=1e-2)


def test_a_crop_is_torchvisions_resized_crop(
    pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_and_centred = torch.full((12,), 0.5)
    monkeypatch.setattr(Chance, "uniform", lambda _: half_and_centred)
    changed = augment(pictures, Strength(mirror=0.0, crop=1.0), _chance())
    planes = pictures.permute(0, 3, 1, 2).float()
    expected = tv.resized_crop(planes, 6, 5, 12, 10, [24, 20], antialias=False)
    # What lies outside the crop is seen by its border alone, torchvision repeats the border.
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(changed[inner], expected.permute(0, 2, 3, 1)[inner], atol=1e-2)


def test_a_crop_stays_inside_the_picture() -> None:
    ramp = torch.arange(24, dtype=torch.uint8)[None, :, None, None].expand(12, 24, 20, 3)
    shown = augment(ramp.contiguous(), Strength(mirror=0.0, crop=0.6), _chance())
    step = (shown[:, 2:-2] - shown[:, 1:-3])[..., 0]
    assert (step > 0.3).all() and (step < 1.01).all()  # never mirrored, never shrunk


def test_a_probability_of_blur_and_low_resolution_leaves_the_other_pictures_alone(
    pictures: torch.Tensor,
) -> None:
    for piece in ({"blur": 0.5, "sigma": 0.05}, {"coarse": 0.5}):
        changed = augment(pictures, Strength(mirror=0.0, **piece), _chance())
        same = (changed == pictures.float()).flatten(1).all(1)
        assert 0 < int(same.sum()) < 12


def test_erasing_leaves_grey_rectangles(pictures: torch.Tensor) -> None:
    changed = augment(pictures, Strength(mirror=0.0, erase=1.0), _chance())
    grey = (changed == 127.5).all(3).flatten(1).float().mean(1)
    assert (grey > 0.01).all() and (grey < 0.25).all()


def test_an_unknown_strength_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="medium"):
        strength_named("extreme")
