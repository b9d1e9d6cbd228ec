from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from faceidx.models.folding import fold_norms
from faceidx.models.hybrid import NARROW, WIDE, HybridFace, Kind

# Numbers of a view, of which a network has five, and of the closed form.
_VIEW, _REST = 2, 12
_LEARNED = 2 * 5 * _VIEW


def _network(kind: Kind = NARROW) -> HybridFace:
    torch.manual_seed(0)
    return HybridFace(_LEARNED + _REST, (112, 112), kind)


def test_while_training_each_picture_goes_through_one_network() -> None:
    network = _network().train()
    rows = network(torch.rand(12, 3, 112, 112) * 2 - 1)
    for place, row in enumerate(rows):
        filled = row.nonzero()[:, 0] // (5 * _VIEW)
        assert filled.unique().tolist() == [place % 2]


def test_of_too_few_pictures_for_the_norms_all_go_through_all() -> None:
    rows = _network().train()(torch.rand(3, 3, 112, 112) * 2 - 1)
    assert (rows[:, :_LEARNED] != 0).all() and (rows[:, _LEARNED:] == 0).all()


def test_a_network_learns_from_its_own_pictures_alone() -> None:
    network = _network().train()
    network(torch.rand(9, 3, 112, 112) * 2 - 1)[1::2].square().sum().backward()
    moved = [
        any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
        for part in network.networks
    ]
    assert moved == [False, True]
    assert all(p.grad is None for p in network.descriptor.parameters())


@pytest.mark.parametrize(
    ("kind", "shape", "row", "seen_by"),
    [
        (NARROW, (256, 4, 4), 2, [3]),
        (WIDE, (512, 7, 7), 0, [1]),
        (WIDE, (512, 7, 7), 1, [1, 2]),  # a row between two stripes is seen by both
        (WIDE, (512, 7, 7), 6, [4]),
    ],
)
def test_a_row_is_seen_by_the_view_of_its_stripe_and_of_all(
    kind: Kind, shape: tuple[int, int, int], row: int, seen_by: list[int]
) -> None:
    """Of the map behind the last layer; what the layers before see around it is theirs."""
    network = _network(kind).networks[0].eval()
    maps = torch.rand(1, *shape)
    network.body = torch.nn.Identity()
    changed = maps.clone()
    changed[:, :, row] += 1
    with torch.inference_mode():
        moved = (network(maps) != network(changed)).unflatten(1, (5, _VIEW)).any(2)[0]
    assert moved.nonzero().flatten().tolist() == [0, *seen_by]


@pytest.mark.parametrize("kind", [NARROW, WIDE])
def test_what_the_networks_see_is_as_large_as_their_stripes_take_it_to_be(kind: Kind) -> None:
    network = _network(kind).eval()
    faces = torch.rand(1, 3, 112, 112)
    for part, look in zip(network.networks, kind.looks, strict=True):
        seen = look(faces)
        assert seen.shape[2:] == (kind.side, kind.side)
        with torch.inference_mode():
            rows = part.body(seen).shape[2]
        assert [n for stripe in part._stripes for n in range(rows)[stripe]][-1] == rows - 1


@pytest.mark.parametrize("kind", [NARROW, WIDE])
def test_judging_every_part_has_its_weight_and_a_mirrored_face_the_same_networks(
    kind: Kind,
) -> None:
    network = _network(kind).eval()
    faces = F.avg_pool2d(torch.rand(2, 3, 112, 112), 3, 1, 1) * 2 - 1
    with torch.inference_mode():
        rows, mirrored = network(faces), network(faces.flip(3))
    views = rows[:, :_LEARNED].unflatten(1, (10, _VIEW)).norm(dim=2)
    rest = rows[:, _LEARNED:].norm(dim=1, keepdim=True)
    weights = torch.tensor([[1, 0.5, 0.5, 0.5, 0.5] * 2] * 2)
    torch.testing.assert_close(views / views[:, :1], weights)
    torch.testing.assert_close(rest / views[:, :1], torch.full((2, 1), kind.described * 2**0.5))
    # The inner part of the face lies in its middle, up to nothing.
    torch.testing.assert_close(rows[:, :_LEARNED], mirrored[:, :_LEARNED], rtol=1e-3, atol=1e-4)


def test_its_norms_can_be_folded() -> None:
    network = _network().train()
    network(torch.rand(12, 3, 112, 112) * 2 - 1)  # the norms have seen something
    folded = fold_norms(network.eval())
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(folded(faces), network(faces), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
