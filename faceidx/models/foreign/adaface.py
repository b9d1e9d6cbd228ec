"""The IR networks of AdaFace (net.py), and of face.evoLVe (backbone/model_irse.py) before it.

An IR network computes what an iresnet does, with two differences, and both can be written as an
iresnet's weights. Where the width stays and the side is halved its shortcut takes every second
pixel, which is a 1x1 convolution by the identity matrix. face.evoLVe's blocks lack the norm between
the first convolution and the PReLU, which is a norm that changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceidx.errors import InputError
from faceidx.models.foreign.recognised import Recognised, add_scale, neutral_norm, rows

if TYPE_CHECKING:
    import torch

ANCHOR = "body.0.res_layer.0.weight"

_ENDS = {
    "input_layer.0": "conv1",
    "input_layer.1": "bn1",
    "input_layer.2": "prelu",
    "output_layer.0": "bn2",
    "output_layer.3": "fc",
    "output_layer.4": "features",
}
_SHORTCUT = {"shortcut_layer.0": "downsample.0", "shortcut_layer.1": "downsample.1"}
_BLOCK = ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")
_BLOCK_WITHOUT_NORM = ("bn1", "conv1", "prelu", "conv2", "bn3")
# They count one layer more.
_THEIR_DEPTHS = {100: 101}
_WIDTHS = (64, 128, 256, 512)


def convert(weights: dict[str, torch.Tensor], *, fc: str | None) -> Recognised:
    """An IR network as an iresnet."""
    import torch

    from faceidx.models.iresnet import LAYERS

    with_norm = "body.0.res_layer.2.running_mean" in weights
    names = _BLOCK if with_norm else _BLOCK_WITHOUT_NORM
    places = {f"res_layer.{i}": name for i, name in enumerate(names)} | _SHORTCUT
    stages = _stages(weights, f"res_layer.{names.index('conv2')}.weight")
    depths = [depth for depth, layers in LAYERS.items() if layers == [len(s) for s in stages]]
    if not depths:
        raise InputError(
            f"an IR network with {[len(s) for s in stages]} plain blocks is none of "
            f"{', '.join(map(str, LAYERS))} (those with bottlenecks or squeeze-and-excitation "
            "cannot be run)"
        )
    ours = {f"body.{n}": f"layer{s + 1}.{i}" for s, b in enumerate(stages) for i, n in enumerate(b)}
    converted = {_rename(name, places, ours): tensor for name, tensor in weights.items()}
    for stage, width in enumerate(_WIDTHS, 1):
        if f"layer{stage}.0.downsample.0.weight" not in converted:
            converted[f"layer{stage}.0.downsample.0.weight"] = torch.eye(width)[:, :, None, None]
            _put(converted, f"layer{stage}.0.downsample.1", width)
    if not with_norm:
        for stage, blocks in enumerate(stages):
            for i in range(len(blocks)):
                _put(converted, f"layer{stage + 1}.{i}.bn2", _WIDTHS[stage])
    add_scale(converted, "features")
    depth = depths[0]
    project = "AdaFace" if with_norm else "face.evoLVe"
    return Recognised(
        origin=f"IR-{_THEIR_DEPTHS.get(depth, depth)} of {project}",
        arch=f"iresnet{depth}",
        embedding_dim=rows(converted, "fc.weight"),
        weights=converted,
    )


def _stages(weights: dict[str, torch.Tensor], last: str) -> list[list[str]]:
    """Numbers of the blocks of each width, in order; none where their order is not by width."""
    widths: list[int] = []
    while (last_weight := weights.get(f"body.{len(widths)}.{last}")) is not None:
        widths.append(rows({last: last_weight}, last))
    if widths != sorted(widths):
        return []
    return [[str(n) for n, w in enumerate(widths) if w == width] for width in _WIDTHS]


def _rename(name: str, places: dict[str, str], blocks: dict[str, str]) -> str:
    """Our name of a weight; its own where we have none, which is an error later."""
    parts = name.split(".")
    if parts[0] == "body":
        block, place = ".".join(parts[:2]), ".".join(parts[2:4])
        if block in blocks and place in places:
            return ".".join([blocks[block], places[place], *parts[4:]])
    elif (layer := ".".join(parts[:2])) in _ENDS:
        return ".".join([_ENDS[layer], *parts[2:]])
    return name


def _put(weights: dict[str, torch.Tensor], name: str, channels: int) -> None:
    weights.update({f"{name}.{part}": t for part, t in neutral_norm(channels).items()})
