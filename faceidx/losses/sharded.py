"""A classifier whose classes are spread over the processes, and trained on a share of them a step.

PartialFC (An et al. 2021, "Partial FC: Training 10 Million Identities on a Single Machine",
arXiv:2010.05222; An et al. 2022, "Killing Two Birds with One Stone", CVPR, arXiv:2203.15565).
Every process sees the embeddings of all, and scores them against its own classes; the softmax's
largest logit and sum go over all processes. Of the classes that no picture of the batch belongs to
only a share takes part in a step, drawn anew each time; weights and the optimizer's memory of the
others stand still.

arcface_torch (github: deepinsight/insightface, partial_fc_v2.py) draws in each process apart and
writes a checkpoint that only as many processes can read. Here what is drawn does not depend on
the number of processes, and neither does what is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from faceidx.errors import InputError
from faceidx.losses.cosine import at_least_float32
from faceidx.losses.registry import SHARDED_HEADS, create_head
from faceidx.losses.scoring_head import ScoringHead
from faceidx.processes import (
    RowRange,
    add_up,
    gather_rows,
    largest,
    process_count,
    process_number,
    row_counts,
)

# Weights are drawn in blocks, so that no process has the whole in memory. A multiple of 16 values,
# which torch's generator draws at a time: so the blocks are those of one large draw.
_ROWS_AT_ONCE = 1 << 15
_FIRST_STD = 0.01  # as in the heads themselves


def create_shard(loss: str, *, dim: int, rows: RowRange, **options: Any) -> ScoringHead:
    """Build the part of a head that holds some of its classes, as `registry.create_head` would.

    Raises:
        InputError: as `create_head`, or the loss is none that can be spread.
    """
    if loss not in SHARDED_HEADS:
        raise InputError(
            f"--loss {loss}: its classes can neither be spread over processes nor sampled; give "
            f"--head-shards off and --sample-rate 1, or one of {', '.join(SHARDED_HEADS)}"
        )
    if rows.total < rows.processes:
        raise InputError(
            f"--head-shards: {rows.total} identities for {rows.processes} processes; give off"
        )
    with torch.random.fork_rng(devices=[]):
        classes = rows.last - rows.first
        head = cast(ScoringHead, create_head(loss, dim=dim, classes=classes, **options))
    _draw_weight(head.weight, rows)
    return head


@torch.no_grad()
def _draw_weight(weight: nn.Parameter, rows: RowRange) -> None:
    """Give a shard the numbers that these rows of the whole weight would get."""
    for start in range(0, rows.total, _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, rows.total)
        block = torch.empty(end - start, *weight.shape[1:]).normal_(std=_FIRST_STD)
        low, high = max(start, rows.first), min(end, rows.last)
        if low < high:
            weight[low - rows.first : high - rows.first] = block[low - start : high - start]


class ClassShard:
    """One process's classes of a head, and the choice among them that a step makes.

    Args:
        head: as `create_shard` built it.
        rows: which classes it holds.
        rate: share of all classes that takes part in a step; 1 takes all.
    """

    def __init__(self, head: ScoringHead, rows: RowRange, rate: float = 1.0) -> None:
        self.rows, self.rate = rows, rate
        self.active: dict[str, nn.Parameter] = {}
        """Where rate is below 1, the weights of the classes drawn, by name: these are trained."""
        self.memory: dict[str, dict[str, torch.Tensor]] = {}
        """Where rate is below 1, what the optimizer remembers of all classes held, by name."""
        self._chosen: torch.Tensor | None = None
        self._drawn = 0
        self._exchange: Callable[[nn.Parameter, nn.Parameter], None] | None = None
        if rate < 1:
            for name, parameter in head.named_parameters():
                self.active[name] = nn.Parameter(parameter.detach()[:0].clone())
                parameter.requires_grad_(False)

    def draw(self, head: ScoringHead, labels: torch.Tensor, seed: int) -> None:
        """Choose the classes of a step: those of the batch, and others by chance.

        Args:
            labels: (n,) of this process's pictures of the whole batch, all its parts.
            seed: the same in all processes.
        """
        if self.rate == 1:
            return
        chance = torch.rand(self.rows.total, generator=torch.Generator().manual_seed(seed))
        present = gather_rows(labels).unique().cpu()
        chance[present] = 2  # more than any that is drawn
        # Two at least: a softmax over one class says nothing.
        wanted = max(len(present), round(self.rate * self.rows.total), 2)
        self._drawn = min(wanted, self.rows.total)
        chosen = chance.topk(self._drawn, sorted=False).indices.sort().values
        mine = chosen[(chosen >= self.rows.first) & (chosen < self.rows.last)] - self.rows.first
        self._chosen = mine.to(labels.device)
        for name, parameter in head.named_parameters():
            # A new leaf each time: how many there are changes, and what autograd still knows of
            # the last step's would not fit.
            drawn = nn.Parameter(parameter.detach()[self._chosen])
            if self._exchange:
                self._exchange(self.active[name], drawn)
            self.active[name] = drawn

    def loss(
        self, head: ScoringHead, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's (n, D) embeddings and (n,) labels to their mean loss, and what is right.

        Gradients of what the processes share are averaged over them (DDP does it), those of a
        shard are not. So a shard's are the mean over processes, and what goes back to
        the embeddings is as much larger.

        Returns:
            A scalar, and (n,) bool: whether the right class scores highest among those that take
            part in the step.
        """
        counts = row_counts(labels)
        before = sum(counts[: process_number()])
        own = slice(before, before + len(labels))
        everyone = _Gather.apply(at_least_float32(embeddings), counts)
        scores = head.scores(everyone, self._taking_part(head))
        column = self._columns(gather_rows(labels, counts))
        smoothing = head.label_smoothing
        parts, highest = _Parts.apply(scores, column, head.scale, smoothing > 0)
        (target, powers, others), highest = add_up(parts)[:, own], highest[own]
        margined = head.margined(target[:, None], at_least_float32(embeddings)).squeeze(1)
        logit = head.scale * margined
        losses = torch.logaddexp(powers.log() + head.scale * highest, logit) - logit
        if smoothing:
            mean = (head.scale * others + logit) / self._classes_now()
            losses = losses + smoothing * (logit - mean)
        return losses.mean(), target > highest

    def trained(self, head: ScoringHead) -> list[nn.Parameter]:
        """The parameters that the optimizer is to move."""
        return list(self.active.values()) or list(head.parameters())

    def attach(self, head: ScoringHead, optimizer: torch.optim.Optimizer) -> None:
        """Let each step of the optimizer move the drawn classes and what it remembers of them.

        A step that is skipped, as of a gradient that overflowed, leaves all as it was.
        """
        if self.rate == 1:
            return
        whole = dict(head.named_parameters())

        def exchange(old: nn.Parameter, new: nn.Parameter) -> None:
            for group in optimizer.param_groups:
                group["params"] = [new if p is old else p for p in group["params"]]
            if old in optimizer.state:
                optimizer.state[new] = optimizer.state.pop(old)

        def lend(*_: Any) -> None:
            for name, active in self.active.items():
                for slot, memory in self.memory.get(name, {}).items():
                    optimizer.state[active][slot] = memory[self._chosen]

        def take_back(*_: Any) -> None:
            for name, active in self.active.items():
                whole[name].data[self._chosen] = active.data
                state = optimizer.state[active]
                for slot in [s for s, t in state.items() if _is_like(t, active)]:
                    kept = self.memory.setdefault(name, {})
                    if slot not in kept:
                        kept[slot] = torch.zeros_like(whole[name])
                    kept[slot][self._chosen] = state.pop(slot)

        self._exchange = exchange
        optimizer.register_step_pre_hook(lend)
        optimizer.register_step_post_hook(take_back)

    def _taking_part(self, head: ScoringHead) -> dict[str, torch.Tensor]:
        return dict(self.active) or dict(head.named_parameters())

    def _classes_now(self) -> int:
        """How many take part in this step, over all processes."""
        return self._drawn if self.active else self.rows.total

    def _columns(self, labels: torch.Tensor) -> torch.Tensor:
        """Places of labels among the classes that take part here, -1 for those held elsewhere."""
        held = (labels >= self.rows.first) & (labels < self.rows.last)
        places = labels - self.rows.first
        if self._chosen is not None:
            places = torch.searchsorted(self._chosen, places)
        return torch.where(held, places, -1)


def _is_like(value: Any, parameter: torch.Tensor) -> bool:
    return torch.is_tensor(value) and value.shape == parameter.shape


class _Parts(torch.autograd.Function):
    """(B, K) scores of this process's classes to what the softmax over all processes is made of.

    Returns:
        (3, B): the score of the right class, 0 where another process holds it; of the others the
        sum of exp(s (score - highest)), and the sum of the scores where `summed` asks for it. And
        (B,) the highest score of the others over all processes. Nothing but the powers is kept for
        the gradient, and it takes their place.
    """

    @staticmethod
    def forward(
        context: Any, scores: torch.Tensor, column: torch.Tensor, scale: float, summed: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = (column >= 0).nonzero().squeeze(1)
        places = rows, column[rows]
        target = scores.new_zeros(len(scores))
        target[rows] = scores[places]
        others = scores.sum(1) - target if summed else torch.zeros_like(target)
        powers = scores.clone()
        powers[places] = -torch.inf
        highest = scores.new_full((len(scores),), -torch.inf)
        if powers.shape[1]:
            highest = powers.amax(1)
        highest = largest(highest)
        powers.sub_(highest[:, None]).mul_(scale).exp_()
        context.powers, context.places = powers, places
        context.scale, context.summed = scale, summed
        context.mark_non_differentiable(highest)
        return torch.stack([target, powers.sum(1), others]), highest

    @staticmethod
    def backward(
        context: Any, of_parts: torch.Tensor, _: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
        of_target, of_powers, of_others = of_parts / process_count()
        gradient, context.powers = context.powers, None
        gradient.mul_((of_powers * context.scale)[:, None])
        if context.summed:
            gradient.add_(of_others[:, None])
        gradient[context.places] = of_target[context.places[0]]
        return gradient, None, None, None


class _Gather(torch.autograd.Function):
    """(n, D) of each process to those of all; what comes back is summed over the processes."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, counts: list[int]) -> torch.Tensor:
        before = sum(counts[: process_number()])
        context.own = slice(before, before + len(rows))
        return gather_rows(rows, counts)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return process_count() * add_up(gradient.contiguous())[context.own], None
