"""What of a network is not learned but fitted in closed form, before the first step."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import Fabric

from faceidx.models.hybrid import HybridFace
from faceidx.models.torch_model import normalize_pictures
from faceidx.progress import Progress, ProgressCallback, silent
from faceidx.training.discriminant import fit_descriptor
from faceidx.training.job import Job
from faceidx.training.network import TrainingNetwork

# Of more pictures a sample does: the fit takes memory and time by their number, and by its square.
_MOST_PICTURES = 12_000
_BATCH = 64


def fit_closed_form(
    fabric: Fabric, job: Job, network: TrainingNetwork, progress: ProgressCallback = silent
) -> None:
    """Fit what can be fitted to the pictures of a run, the same in all processes.

    A model that the run starts from keeps what it was fitted to.
    """
    backbone = network.backbone
    if not isinstance(backbone, HybridFace) or job.start.content is not None:
        return
    if fabric.is_global_zero:
        try:
            _fit(job, backbone, fabric.device, progress)
        except torch.cuda.OutOfMemoryError:
            _fit(job, backbone, torch.device("cpu"), progress)
    for parameter in backbone.descriptor.parameters():
        parameter.data.copy_(fabric.broadcast(parameter.data))


def _fit(job: Job, backbone: HybridFace, device: torch.device, progress: ProgressCallback) -> None:
    fitted = copy.deepcopy(backbone).to(device)
    fit_descriptor(fitted.descriptor, _faces(job, fitted, device, progress))
    backbone.descriptor.load_state_dict(fitted.descriptor.state_dict())


def _sample(job: Job) -> np.ndarray:
    """Places in the training rows, in their order."""
    count = len(job.data.rows)
    if count <= _MOST_PICTURES:
        return np.arange(count)
    rng = np.random.default_rng(job.options.seed)
    return np.sort(rng.choice(count, _MOST_PICTURES, replace=False))


def _faces(
    job: Job, backbone: HybridFace, device: torch.device, progress: ProgressCallback
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(n, 3, 112, 112) pictures and the (n,) labels of those that can be read."""
    chosen = _sample(job)
    for first in range(0, len(chosen), _BATCH):
        places = chosen[first : first + _BATCH]
        pictures, readable = job.data.bank.fetch(job.data.rows[places])
        pictures = pictures[torch.from_numpy(readable)].to(device)
        labels = torch.from_numpy(job.data.labels[places[readable]]).to(device)
        yield backbone.faces(normalize_pictures(pictures, job.preprocessing)), labels
        progress(Progress("describe", first + len(places), len(chosen)))
