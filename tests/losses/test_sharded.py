"""Classes spread over processes against the plain heads in one process, and sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from faceidx.errors import InputError
from faceidx.losses.registry import SHARDED_HEADS, create_head
from faceidx.losses.sharded import ClassShard, create_shard
from faceidx.processes import RowRange
from tests.processes import run_together

_CLASSES, _DIM = 11, 6  # neither two nor three processes hold the same number of classes
_LABELS = torch.tensor([0, 10, 4, 4, 7, 5, 0])
# Pictures of each process, unevenly many.
_PARTS = {
    1: [slice(0, 7)],
    2: [slice(0, 3), slice(3, 7)],
    3: [slice(0, 1), slice(1, 4), slice(4, 7)],
}
_CASES = [(loss, smoothing) for loss in SHARDED_HEADS for smoothing in (0.0, 0.1)]


def _embeddings(dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    # Lengths around AdaFace's first mean, so that its quality differs between pictures.
    drawn = torch.randn(len(_LABELS), _DIM, generator=generator, dtype=torch.float64)
    return (drawn * 10).to(dtype)


def _whole_head(loss: str, smoothing: float, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    return create_head(loss, dim=_DIM, classes=_CLASSES, label_smoothing=smoothing).to(dtype)


def _plain(loss: str, smoothing: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Loss, gradients, statistics and right answers of the plain head with the whole batch."""
    head, embeddings = _whole_head(loss, smoothing, dtype), _embeddings(dtype).requires_grad_()
    value, logits = head(embeddings, _LABELS)
    value.backward()
    assert embeddings.grad is not None
    found = {"loss": value.detach(), "embeddings": embeddings.grad}
    found |= {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
    return found | dict(head.named_buffers()) | {"right": logits.argmax(1) == _LABELS}


def _sharded(number: int, count: int, dtype: torch.dtype) -> dict[str, dict[str, torch.Tensor]]:
    """The same for one process's part, scaled as the training loop and DDP scale it."""
    part, found = _PARTS[count][number], {}
    for loss, smoothing in _CASES:
        torch.manual_seed(1)
        rows = RowRange(total=_CLASSES, processes=count, number=number)
        head = create_shard(loss, dim=_DIM, rows=rows, label_smoothing=smoothing).to(dtype)
        shard = ClassShard(head, rows)
        embeddings = _embeddings(dtype)[part].requires_grad_()
        labels = _LABELS[part]
        value, right = shard.loss(head, embeddings, labels)
        share = len(labels) / len(_LABELS)
        (value * share * count).backward()
        assert embeddings.grad is not None
        results = {"loss": value.detach() * share, "embeddings": embeddings.grad / count}
        results |= {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
        found[f"{loss} {smoothing}"] = results | dict(head.named_buffers()) | {"right": right}
    return found


def _drawn(number: int, count: int, rate: float) -> list[list[int]]:
    """Classes that take part in three steps, of those that this process holds."""
    rows = RowRange(total=200, processes=count, number=number)
    head = create_shard("cosface", dim=4, rows=rows)
    shard = ClassShard(head, rows, rate)
    found = []
    for seed in range(3):
        labels = torch.tensor([3, 150, 199, 3]) + (0 if number == 0 else -3)
        shard.draw(head, labels, seed)
        assert shard._chosen is not None
        assert torch.equal(shard.active["weight"].data, head.weight.data[shard._chosen])
        found.append((shard._chosen + rows.first).tolist())
    return found


def _all_at_once(number: int, count: int) -> dict[str, Any]:
    kinds = {"float32": torch.float32, "float64": torch.float64}
    found: dict[str, Any] = {name: _sharded(number, count, kind) for name, kind in kinds.items()}
    return found | {"drawn": _drawn(number, count, 0.1)}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each of one, two and three processes found."""
    several = {
        count: run_together(count, _all_at_once, tmp_path_factory.mktemp("run"), count)
        for count in (2, 3)
    }
    return {1: [_all_at_once(0, 1)], **several}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("kind", "exact"), [("float32", 1e-5), ("float64", 1e-10)])
def test_loss_and_gradients_are_those_of_the_plain_head(
    count: int, kind: str, exact: float, together: dict[int, list[dict[str, Any]]]
) -> None:
    for loss, smoothing in _CASES:
        expected = _plain(loss, smoothing, getattr(torch, kind))
        found = [part[kind][f"{loss} {smoothing}"] for part in together[count]]
        assert found[0].keys() == expected.keys()
        for name, wanted in expected.items():
            each = [values[name] for values in found]
            if name == "loss":
                got = torch.stack(each).sum()
            elif name.startswith("length"):  # a statistic, which all processes share
                got = each[-1]
            else:
                got = torch.cat(each)
            close = exact * float(wanted.double().abs().max())
            torch.testing.assert_close(got, wanted, rtol=exact, atol=close)


def test_the_shards_begin_with_the_rows_of_the_plain_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceidx.losses.sharded._ROWS_AT_ONCE", 32)
    for loss in SHARDED_HEADS:
        torch.manual_seed(1)
        whole = create_head(loss, dim=5, classes=100)
        parts = []
        for number in range(3):
            torch.manual_seed(1)
            rows = RowRange(total=100, processes=3, number=number)
            parts.append(create_shard(loss, dim=5, rows=rows).weight)
        assert torch.equal(torch.cat(parts), whole.weight)


def test_extreme_scores_keep_loss_and_gradient_finite() -> None:
    head = create_head("softmax", dim=2, classes=3)
    shard = ClassShard(head, RowRange(total=3))
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1000.0, 0.0], [0.0, 1000.0], [-1000.0, 0.0]]))
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    value, right = shard.loss(head, embeddings, torch.tensor([0, 0]))
    value.backward()
    assert value.item() == pytest.approx(1000)  # the mean of 0 and 2000
    assert right.tolist() == [True, False]
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()


@pytest.mark.parametrize("count", [2, 3])
def test_all_of_the_batch_and_the_share_asked_for_are_drawn(
    count: int, together: dict[int, list[dict[str, Any]]]
) -> None:
    parts = [part["drawn"] for part in together[count]]
    present = {3, 150, 199, 0, 147, 196}
    steps = [sorted(c for part in parts for c in part[step]) for step in range(3)]
    for drawn in steps:
        assert len(drawn) == len(set(drawn)) == 20
        assert present <= set(drawn)
    assert steps[0] != steps[1] != steps[2]
    # The number of processes does not matter: one that sees the whole batch draws the same.
    rows = RowRange(total=200)
    head = create_shard("cosface", dim=4, rows=rows)
    shard = ClassShard(head, rows, 0.1)
    for seed, drawn in enumerate(steps):
        shard.draw(head, torch.tensor(sorted(present)), seed)
        assert shard._chosen is not None and shard._chosen.tolist() == drawn


def test_more_people_in_a_batch_than_the_share_all_take_part() -> None:
    head = create_shard("softmax", dim=4, rows=RowRange(total=20))
    shard = ClassShard(head, RowRange(total=20), 0.05)
    shard.draw(head, torch.arange(12), seed=0)
    assert shard._chosen is not None and shard._chosen.tolist() == list(range(12))


def _stepped(
    optimizer: type[torch.optim.Optimizer], rate: float, **settings: Any
) -> tuple[nn.Module, ClassShard, list[torch.Tensor]]:
    """Three steps with a share of the classes: the head, and which took part in each."""
    torch.manual_seed(1)
    rows = RowRange(total=_CLASSES)
    head = create_shard("softmax", dim=_DIM, rows=rows)
    shard = ClassShard(head, rows, rate)
    moves = optimizer(shard.trained(head), lr=0.1, **settings)
    shard.attach(head, moves)
    drawn = []
    for seed in range(3):
        shard.draw(head, _LABELS[:3], seed)
        value, _ = shard.loss(head, _embeddings(torch.float32)[:3], _LABELS[:3])
        value.backward()
        moves.step()
        moves.zero_grad()
        assert shard._chosen is not None
        drawn.append(shard._chosen)
    return head, shard, drawn


def test_rows_that_were_not_drawn_stand_still_with_their_momentum() -> None:
    torch.manual_seed(1)
    before = create_shard("softmax", dim=_DIM, rows=RowRange(total=_CLASSES))
    head, shard, drawn = _stepped(
        torch.optim.SGD, 0.5, momentum=0.9, nesterov=True, weight_decay=0.1
    )
    ever = torch.cat(drawn).unique()
    never = torch.tensor(sorted(set(range(_CLASSES)) - set(ever.tolist())))
    assert 0 < len(never) < _CLASSES
    assert torch.equal(head.weight[never], before.weight[never])
    assert (head.weight[ever] != before.weight[ever]).all()
    momentum = shard.memory["weight"]["momentum_buffer"]
    assert not momentum[never].any() and momentum[ever].all()
    # By hand: only the rows of a step move, and their momentum waits for the next time.
    rows, slow = before.weight.detach().clone(), torch.zeros(_CLASSES, _DIM)
    bias, slow_bias = torch.zeros(_CLASSES), torch.zeros(_CLASSES)
    for chosen in drawn:
        weight = rows[chosen].requires_grad_()
        offset = bias[chosen].requires_grad_()
        logits = _embeddings(torch.float32)[:3] @ weight.t() + offset
        targets = torch.searchsorted(chosen, _LABELS[:3])
        nn.functional.cross_entropy(logits, targets).backward()
        for whole, memory, part in ((rows, slow, weight), (bias, slow_bias, offset)):
            assert part.grad is not None
            slope = part.grad + 0.1 * part.detach()
            memory[chosen] = 0.9 * memory[chosen] + slope
            whole[chosen] -= 0.1 * (slope + 0.9 * memory[chosen])
    torch.testing.assert_close(head.weight.detach(), rows)
    torch.testing.assert_close(head.bias.detach(), bias)
    torch.testing.assert_close(momentum, slow)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_the_number_of_classes_may_change_while_the_last_loss_is_still_at_hand(
    kind: type[torch.optim.Optimizer],
) -> None:
    head = create_shard("softmax", dim=_DIM, rows=RowRange(total=_CLASSES))
    shard = ClassShard(head, RowRange(total=_CLASSES), 0.1)
    moves = kind(shard.trained(head), lr=0.1)
    shard.attach(head, moves)
    losses = []
    for count in (2, 5, 3):
        labels = torch.arange(count)
        shard.draw(head, labels, seed=0)
        before = head.weight.detach().clone()
        losses.append(shard.loss(head, _embeddings(torch.float32)[:count], labels)[0])
        moves.zero_grad()
        losses[-1].backward()
        moves.step()
        moved = (head.weight != before).any(1)
        assert moved.tolist() == [c < count for c in range(_CLASSES)]
    assert [len(group["params"]) for group in moves.param_groups] == [2]


def test_what_adamw_remembers_of_a_class_waits_for_its_next_turn() -> None:
    head, shard, drawn = _stepped(torch.optim.AdamW, 0.5)
    ever = torch.cat(drawn).unique()
    for slot in ("exp_avg", "exp_avg_sq"):
        memory = shard.memory["weight"][slot]
        assert memory[ever].all() and memory.shape == head.weight.shape
        assert int((memory != 0).any(1).sum()) == len(ever)


def test_a_skipped_step_leaves_weights_and_memory_alone() -> None:
    head = create_shard("softmax", dim=_DIM, rows=RowRange(total=_CLASSES))
    shard = ClassShard(head, RowRange(total=_CLASSES), 0.5)
    moves = torch.optim.SGD(shard.trained(head), lr=0.1, momentum=0.9)
    shard.attach(head, moves)
    before = head.weight.detach().clone()
    shard.draw(head, _LABELS, 0)
    value, _ = shard.loss(head, _embeddings(torch.float32), _LABELS)
    value.backward()  # a scaler that sees an overflow does not call the optimizer's step
    shard.draw(head, _LABELS, 1)
    assert torch.equal(head.weight, before) and not shard.memory


def test_a_loss_that_cannot_be_spread_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="--loss sphereface: its classes can neither"):
        create_shard("sphereface", dim=_DIM, rows=RowRange(total=_CLASSES))


def test_fewer_identities_than_processes_are_refused() -> None:
    with pytest.raises(InputError, match="2 identities for 3 processes"):
        create_shard("softmax", dim=_DIM, rows=RowRange(total=2, processes=3))
