"""Networks of other projects, recognised by the names and shapes of their weights: one file a
family, and `recognise` the one door to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceidx.errors import InputError
from faceidx.models.foreign import adaface, facenet, insightface, mobilefacenet, ours, torchvision
from faceidx.models.foreign.recognised import OF_TORCHVISION, Recognised

if TYPE_CHECKING:
    import torch

# In the order in which they are tried: each looks for one weight that the families before it lack.
_FAMILIES = (insightface, adaface, facenet, mobilefacenet, ours, torchvision)
# First part of the names under which trainers keep a classifier or a loss among a network's own.
_CLASSIFIERS = {"head", "logits", "classifier", "margin", "arcface", "metric", "loss", "criterion"}


def recognise(
    tensors: dict[str, torch.Tensor], source: str, *, fc: str | None = None
) -> Recognised:
    """Find the one network among named tensors and bring it to our names.

    Args:
        source: names the file in errors.
        fc: `embedding` or `classifier`, what the last layer of a torchvision network gives; None
            to tell by its size.

    Raises:
        InputError: none is found, or several, or one of a kind that cannot be run here.
    """
    for family in _FAMILIES:
        prefixes = sorted(
            name.removesuffix(family.ANCHOR)
            for name in tensors
            if name == family.ANCHOR or name.endswith("." + family.ANCHOR)
        )
        if len(prefixes) > 1:
            raise InputError(
                f"{source} holds several networks ({', '.join(map(repr, prefixes[:4]))}); "
                "save the one that is meant alone"
            )
        if prefixes:
            _require_one(tensors, prefixes[0], source)
            network, left_out = _split(tensors, prefixes[0])
            try:
                found = family.convert(network, fc=fc)
            except InputError as error:
                raise InputError(f"{source}: {error}") from None
            if fc and not found.arch.startswith(torchvision.ARCH):
                raise InputError(f"{source}: {OF_TORCHVISION}")
            found.left_out += left_out
            return found
    first = ", ".join(name[:60] for name in list(tensors)[:3])
    raise InputError(
        f"{source} holds no network that faceidx knows (its first weights: {first}); known are "
        "iresnets of InsightFace, IR networks of AdaFace, InceptionResnetV1 of "
        "facenet-pytorch, torchvision's ResNets, MobileFaceNet"
    )


def _require_one(tensors: dict[str, torch.Tensor], prefix: str, source: str) -> None:
    """Raise `InputError` where a network of another family lies beside the one under a prefix."""
    anchors = tuple(f".{family.ANCHOR}" for family in _FAMILIES)
    other = next(
        (n for n in tensors if not n.startswith(prefix) and f".{n}".endswith(anchors)), None
    )
    if other is not None:
        names = f"{prefix!r} and that of {other[:60]!r}"
        raise InputError(
            f"{source} holds several networks ({names}); save the one that is meant alone"
        )


def _split(
    tensors: dict[str, torch.Tensor], prefix: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A network's weights without the prefix that a trainer put before them, and what is not its.

    Classifiers go: a file of weights names no classes.
    """
    network, left_out = {}, set()
    for name, tensor in tensors.items():
        short = name.removeprefix(prefix)
        if not name.startswith(prefix) or short.partition(".")[0] in _CLASSIFIERS:
            left_out.add(name.removesuffix("." + name.rpartition(".")[2]))
        else:
            network[short] = tensor
    return network, sorted(left_out)
