"""A recognised network of another project, and what its file leaves to be filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from faceidx.errors import InputError
from faceidx.escape import for_terminal

if TYPE_CHECKING:
    import torch

    from faceidx.images.preprocess import Preprocessing
    from faceidx.models.file import ModelFile

OF_TORCHVISION = "--fc is for the last layer of a torchvision ResNet, which this is not; drop it"

# Epsilon of torch's batch norms. With a variance of one less, a norm changes nothing.
_EPS = 1e-5


@dataclass(kw_only=True)
class Recognised:
    """A network under our names."""

    origin: str
    """For people: whose it is and which."""
    arch: str
    """Name in the registry of backbones."""
    embedding_dim: int
    weights: dict[str, torch.Tensor]
    left_out: list[str] = field(default_factory=list)
    """Parts of the file that are not in `weights`, such as its classifier."""

    def __str__(self) -> str:
        """One line: what was recognised, and what of the file is not used."""
        text = f"{self.origin}, {self.embedding_dim} numbers a face, run as {self.arch}"
        if self.left_out:
            shown = ", ".join(for_terminal(name[:60]) for name in self.left_out[:3]) + (
                ", ..." if len(self.left_out) > 3 else ""
            )
            text += f"; left out: {shown}"
        return text


def to_model_file(found: Recognised, preprocessing: Preprocessing, source: str) -> ModelFile:
    """Make a recognised network the content of a model file of ours; `source` names it in errors.

    All weights become float32, so that one network saved in several ways has one fingerprint as
    far as the numbers are the same.

    Raises:
        InputError: weights are missing, unknown, of another shape, or not finite.
    """
    import torch

    from faceidx.models.file import ModelFile
    from faceidx.models.record import ModelRecord

    try:
        wanted = _shapes(found, preprocessing)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    weights = dict(found.weights)
    for name in wanted.keys() - weights.keys():
        if name.endswith("num_batches_tracked"):  # unknown to early torch, and to no forward pass
            weights[name] = torch.zeros((), dtype=torch.int64)
    what = f"{source}, recognised as {found.origin},"
    if missing := sorted(wanted.keys() - weights.keys()):
        raise InputError(f"{what} lacks {missing[0]} ({len(missing)} weights in all)")
    if unknown := sorted(weights.keys() - wanted.keys()):
        raise InputError(f"{what} holds {unknown[0][:80]}, which that network does not have")
    backbone = {}
    for name, like in wanted.items():
        tensor = weights[name]
        if tensor.shape != like.shape:
            of_size = _shapes(found, preprocessing, times=2)[name].shape != like.shape
            size = " x ".join(map(str, preprocessing.image_size))
            raise InputError(
                f"{what} has {name} of {tuple(tensor.shape)}, where "
                + (f"pictures of {size} need" if of_size else "that network has")
                + f" {tuple(like.shape)}; "
                + ("is --image-size right?" if of_size else "it is a variant that is not known")
            )
        if like.is_floating_point() and not tensor.is_floating_point():
            raise InputError(f"{what} has {name} in {tensor.dtype}, which are no plain numbers")
        tensor = tensor.detach().to(like.dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{what} has numbers in {name} that are not finite")
        backbone[name] = tensor.contiguous().clone()
    record = ModelRecord(
        arch=found.arch,
        embedding_dim=found.embedding_dim,
        preprocessing=preprocessing,
        training={"recognised": str(found)},
    )
    return ModelFile(record=record, backbone=backbone, head={})


def _shapes(
    found: Recognised, preprocessing: Preprocessing, *, times: int = 1
) -> dict[str, torch.Tensor]:
    """The weights of a network, without numbers, for pictures `times` as large on each side.

    Raises:
        InputError: the network is not for pictures of that size.
    """
    import torch

    from faceidx.models.registry import create_backbone

    height, width = preprocessing.image_size
    with torch.device("meta"):
        network = create_backbone(
            found.arch,
            embedding_dim=found.embedding_dim,
            image_size=(times * height, times * width),
        )
    return network.state_dict()


def count_blocks(weights: dict[str, torch.Tensor]) -> list[int]:
    """Number of blocks in `layer1`, `layer2`, ..., from the names of their weights."""
    layers: dict[str, set[str]] = {}
    for name in weights:
        layer, _, rest = name.partition(".")
        if layer.startswith("layer"):
            layers.setdefault(layer, set()).add(rest.partition(".")[0])
    return [len(layers[layer]) for layer in sorted(layers)]


def rows(weights: dict[str, torch.Tensor], name: str) -> int:
    """Length of a weight's first side: of a last layer's, the size of the embedding.

    Raises:
        InputError: there is no such weight, or it is one number.
    """
    if name not in weights or not weights[name].ndim:
        raise InputError(f"it lacks {name}")
    return len(weights[name])


def neutral_norm(channels: int) -> dict[str, torch.Tensor]:
    """Weights of a batch norm that changes nothing."""
    import torch

    return {
        "weight": torch.ones(channels),
        "bias": torch.zeros(channels),
        "running_mean": torch.zeros(channels),
        "running_var": torch.full((channels,), 1 - _EPS),
        "num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }


def add_scale(weights: dict[str, torch.Tensor], norm: str) -> None:
    """Give a norm without scale and shift the ones that change nothing."""
    import torch

    mean = weights.get(f"{norm}.running_mean")
    if mean is not None and f"{norm}.weight" not in weights:
        weights[f"{norm}.weight"] = torch.ones_like(mean)
        weights[f"{norm}.bias"] = torch.zeros_like(mean)
