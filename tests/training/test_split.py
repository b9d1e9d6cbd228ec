"""Splitting pictures into those that train and those that judge."""

from __future__ import annotations

import numpy as np
import pytest

from faceidx.training import split
from faceidx.training.split import epoch_order, split_pictures

LABELS = np.repeat(np.arange(40), 6)


def test_people_held_out_whole_are_never_trained_on() -> None:
    split = split_pictures(LABELS, 0.2, seed=1)
    held_out = set(LABELS[split.verify])
    assert len(held_out) == 4  # of 40 people
    assert not held_out & set(LABELS[split.train])
    assert not held_out & set(LABELS[split.classify])


def test_every_picture_has_exactly_one_place() -> None:
    split = split_pictures(LABELS, 0.2, seed=1)
    together = np.concatenate([split.train, split.classify, split.verify])
    assert sorted(together) == list(range(len(LABELS)))


def test_pictures_that_judge_the_classifier_are_of_people_who_are_trained_on() -> None:
    split = split_pictures(LABELS, 0.2, seed=1)
    assert set(LABELS[split.classify]) <= set(LABELS[split.train])
    assert abs(len(split.classify) - 0.1 * (len(LABELS) - len(split.verify))) <= 1


def test_few_people_are_all_trained_on_and_pictures_judge_both() -> None:
    labels = np.repeat(np.arange(5), 10)
    split = split_pictures(labels, 0.2, seed=1)
    assert set(labels[split.train]) == set(range(5))
    assert np.array_equal(split.classify, split.verify)
    assert len(split.classify) == 10


def test_people_with_two_pictures_keep_both_for_training() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2, 2, 2])
    split = split_pictures(labels, 0.3, seed=0)
    assert set(labels[split.classify]) == {2}


def test_whoever_has_most_of_the_pictures_is_trained_on() -> None:
    labels = np.repeat(np.arange(40), [400, *[3] * 39])
    for seed in range(20):
        assert 0 not in labels[split_pictures(labels, 0.1, seed).verify]


def test_few_people_of_several_pictures_among_many_of_one_are_trained_on() -> None:
    labels = np.repeat(np.arange(60), [*[10] * 5, *[1] * 55])
    split = split_pictures(labels, 0.1, seed=0)
    assert set(labels[split.train]) == set(range(60))
    assert np.array_equal(split.classify, split.verify)


def test_of_people_of_several_pictures_no_more_than_the_share_is_held_out() -> None:
    labels = np.repeat(np.arange(1000), [*[10] * 40, *[1] * 960])
    split = split_pictures(labels, 0.2, seed=0)
    assert len(set(labels[split.verify])) == 4


def test_strangers_to_the_classifier_are_the_ones_held_out() -> None:
    split = split_pictures(LABELS, 0.2, seed=1, strangers=np.array([7, 9]))
    assert set(LABELS[split.verify]) == {7, 9}


def test_nothing_is_held_out_when_nothing_is_asked_for() -> None:
    split = split_pictures(LABELS, 0.0, seed=1)
    assert len(split.train) == len(LABELS)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_same_seed_gives_the_same_split(seed: int) -> None:
    one, other = split_pictures(LABELS, 0.2, seed), split_pictures(LABELS, 0.2, seed)
    assert np.array_equal(one.train, other.train) and np.array_equal(one.verify, other.verify)


def test_another_seed_gives_another_split() -> None:
    one, other = split_pictures(LABELS, 0.2, 0), split_pictures(LABELS, 0.2, 1)
    assert not np.array_equal(one.train, other.train)


def test_a_natural_epoch_holds_every_picture_once() -> None:
    order = epoch_order(LABELS, "natural", np.random.default_rng(0))
    assert sorted(order) == list(range(len(LABELS)))


def test_a_balanced_epoch_holds_every_identity_equally_often() -> None:
    labels = np.repeat(np.arange(5), [1, 2, 3, 14, 30])
    order = epoch_order(labels, "balanced", np.random.default_rng(0))
    assert len(order) == 50
    assert np.bincount(labels[order]).tolist() == [10] * 5
    times = np.bincount(order, minlength=50)
    # A picture comes again only once all others of its person have come.
    for person in range(5):
        own = times[labels == person]
        assert own.max() - own.min() <= 1
    assert not np.array_equal(order, epoch_order(labels, "balanced", np.random.default_rng(1)))


def test_pictures_in_shards_are_shuffled_within_windows_of_shards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(split, "WINDOW", 100)
    shards = np.repeat(np.arange(20), 25)
    labels = np.zeros(500, np.int64)
    orders = [
        epoch_order(labels, "natural", np.random.default_rng(seed), shards) for seed in (1, 1, 2)
    ]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(500))
        windows = shards[order].reshape(5, 100)
        of_window = [set(window.tolist()) for window in windows]
        assert [len(s) for s in of_window] == [4] * 5 and len(set().union(*of_window)) == 20
        assert all((np.diff(window) != 0).mean() > 0.5 for window in windows)  # mixed
        assert (np.diff(windows[0].reshape(10, 10).mean(1)) != 0).any()


def test_few_pictures_in_shards_are_shuffled_all_together() -> None:
    shards, labels = np.repeat(np.arange(2), 50), np.zeros(100, np.int64)
    plain = epoch_order(labels, "natural", np.random.default_rng(0))
    assert np.array_equal(epoch_order(labels, "natural", np.random.default_rng(0), shards), plain)
