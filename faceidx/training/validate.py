"""Judging a network while it trains: the classifier's accuracy and the embedding's pair AUC."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from faceidx.errors import JobError
from faceidx.evaluation.roc import auc, roc_curve
from faceidx.models.face_model import normalize
from faceidx.models.record import Head
from faceidx.models.torch_model import class_logits
from faceidx.processes import gather_rows
from faceidx.training.data import PairCheck, TrainingData
from faceidx.training.network import TrainingNetwork
from faceidx.training.pictures import Bank, look_ahead
from faceidx.training.step import is_scaled

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# All pairs of more pictures than this would take long each epoch; the first ones stand for them.
_MOST_VERIFIED = 3000
# Of classes by the hundred thousand the logits of all pictures would not fit into memory.
_LOGITS_AT_ONCE = 1 << 25


class DivergedError(JobError):
    """The network answers with what is no number."""


def pictures_to_embed(data: TrainingData) -> int:
    """How many pictures `validate` embeds; those that judge in two ways count twice."""
    judged = data.validation
    of_pairs = data.pairs.pictures if data.pairs else 0
    return len(judged.classify_rows) + len(judged.verify_rows[:_MOST_VERIFIED]) + of_pairs


@torch.no_grad()
def validate(
    fabric: Fabric, network: TrainingNetwork, data: TrainingData, head: Head, batch_size: int
) -> dict[str, float | None]:
    """Judge the network; the same on every process.

    Returns:
        `val_accuracy` (share of held-out pictures classified right), `val_auc` (over all pairs of
        the pictures kept for verification) and `pairs_auc` (over the pair list); None for what
        cannot be computed.

    Raises:
        DivergedError: an embedding is no number.
    """
    network.eval()
    judged = data.validation
    results: dict[str, float | None] = {"val_accuracy": None, "val_auc": None, "pairs_auc": None}
    if len(judged.classify_rows):
        rows, fixed = judged.classify_rows, data.fixed["classify"]
        embeddings, there = embed_rows(fabric, network, judged.bank, rows, batch_size, fixed)
        right = (_classify(network, embeddings, head) == judged.classify_labels)[there]
        results["val_accuracy"] = float(right.mean()) if len(right) else None
    rows = judged.verify_rows[:_MOST_VERIFIED]
    if len(rows):
        fixed = data.fixed["verify"]
        embeddings, there = embed_rows(fabric, network, judged.bank, rows, batch_size, fixed)
        if fabric.is_global_zero:
            people = judged.verify_people[: len(rows)]
            results["val_auc"] = all_pairs_auc(embeddings[there], people[there])
    if data.pairs:
        used = np.arange(data.pairs.pictures)
        fixed = data.fixed["pairs"]
        embeddings, there = embed_rows(fabric, network, data.pairs.bank, used, batch_size, fixed)
        if fabric.is_global_zero:
            results["pairs_auc"] = _pairs_auc(embeddings, there, data.pairs)
    network.train()
    # Pictures are embedded by all processes, pairs scored by one: all go on by the same figures.
    return fabric.broadcast(results)


def _classify(network: TrainingNetwork, embeddings: np.ndarray, head: Head) -> np.ndarray:
    """The class of the highest logit for each of (n, D) embeddings, over the classes of all."""
    device = next(network.head.parameters()).device
    weights = {name: w.detach().float().cpu() for name, w in network.head.named_parameters()}
    at_once = max(1, _LOGITS_AT_ONCE // len(weights["weight"]))
    found = [
        class_logits(block, weights, head).max(1)
        for block in torch.from_numpy(embeddings).split(at_once)
    ]
    logits, answers = (torch.cat(columns) for columns in zip(*found, strict=True))
    if network.shard:
        every = gather_rows((answers + network.shard.rows.first).to(device)[None])
        best = gather_rows(logits.to(device)[None]).argmax(0, keepdim=True)
        answers = every.gather(0, best)[0].cpu()
    return answers.numpy()


def _pairs_auc(embeddings: np.ndarray, there: np.ndarray, pairs: PairCheck) -> float | None:
    """AUC over the pairs of a list of which both pictures could be read."""
    units, _ = normalize(embeddings)
    whole = there[pairs.left] & there[pairs.right]
    left, right, genuine = pairs.left[whole], pairs.right[whole], pairs.genuine[whole]
    if not genuine.any() or genuine.all():
        return None
    return auc(roc_curve(np.einsum("pd,pd->p", units[left], units[right]), genuine))


def all_pairs_auc(embeddings: np.ndarray, people: np.ndarray) -> float | None:
    """AUC of cosine scores over all pairs of pictures, None without pairs of both kinds.

    Args:
        embeddings: (n, D), not normalised.
        people: (n,) a number a person.
    """
    units, _ = normalize(embeddings)
    one, other = np.triu_indices(len(units), 1)
    genuine = people[one] == people[other]
    if not genuine.any() or genuine.all():
        return None
    return auc(roc_curve((units @ units.T)[one, other], genuine))


def embed_rows(
    fabric: Fabric,
    network: TrainingNetwork,
    bank: Bank,
    rows: np.ndarray,
    batch_size: int,
    fixed: list[torch.Tensor | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Embed pictures of a bank, each process its share; all get all.

    Args:
        fixed: of each batch what no step changes; empty when these rows come for the first time.

    Returns:
        (len(rows), D) float32, not normalised, and (len(rows),) bool: which could be read.
    """
    world, rank = fabric.world_size, fabric.global_rank
    # Every process embeds the same number; the last rounds repeat pictures to make it come out.
    mine = np.resize(rows, -(-len(rows) // world) * world)[rank::world]
    batches = (mine[i : i + batch_size] for i in range(0, len(mine), batch_size))
    parts = []
    for number, (pictures, readable) in enumerate(look_ahead(bank.fetch, batches)):
        pictures = pictures.to(fabric.device)
        # A young network's norms have seen too little to keep all within fp16.
        with nullcontext() if is_scaled(fabric) else fabric.autocast():
            if number == len(fixed):
                fixed.append(network.fixed_part(pictures))
            embeddings = network.embed(pictures, fixed[number]).float()
        there = torch.from_numpy(readable).to(embeddings)
        parts.append(torch.cat([embeddings, there[:, None]], dim=1))
    gathered = gather_rows(torch.cat(parts)).reshape(world, len(mine), -1)
    # Row r of process p is picture r * world + p.
    together = gathered.transpose(0, 1).flatten(0, 1)[: len(rows)].cpu().numpy()
    if not np.isfinite(together).all():
        raise DivergedError("its embeddings are no numbers any more")
    return together[:, :-1], together[:, -1] > 0
