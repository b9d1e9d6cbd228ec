"""The data of a run: what trains, what judges, and what was left out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from faceidx.errors import InputError
from faceidx.evaluation.lists import read_list
from faceidx.evaluation.lists.finding import find_way, resolve
from faceidx.evaluation.lists.pairs import PairList
from faceidx.images.folders import require_elsewhere
from faceidx.images.sources import Picture, open_source
from faceidx.training.options import TrainOptions
from faceidx.training.overlap import also_trained_on
from faceidx.training.pictures import Bank, Chosen
from faceidx.training.scan import Scan, digest_of, digest_of_pictures
from faceidx.training.split import split_pictures

logger = logging.getLogger(__name__)

UNKNOWN_PERSON = "its identity is none that the classifier of --from knows, and --val judges"
# Pictures to a bank, and (row, reason) of those that it found unreadable.
OpenBank = Callable[[Chosen | Sequence[Picture]], tuple[Bank, list[tuple[int, str]]]]


@dataclass(kw_only=True)
class Judged:
    """Pictures of a bank that judge the classifier, and others that judge the embedding."""

    bank: Bank
    classify_rows: np.ndarray
    classify_labels: np.ndarray
    verify_rows: np.ndarray
    verify_people: np.ndarray
    """A number a person; every pair of these pictures is scored."""
    digest: str = ""
    """Of a folder that they are from, as `Scan` has it; empty where they are held out."""


@dataclass(kw_only=True)
class PairCheck:
    """A pair list that is reported each epoch."""

    bank: Bank
    left: np.ndarray
    right: np.ndarray
    genuine: np.ndarray

    @property
    def pictures(self) -> int:
        """How many of the bank's pictures, from the first on, are compared."""
        return int(max(self.left.max(), self.right.max())) + 1


@dataclass(kw_only=True)
class TrainingData:
    """Everything that a process needs to know of the pictures."""

    bank: Bank
    rows: np.ndarray
    """Rows of the bank to train on."""
    labels: np.ndarray
    """(len(rows),) int64 class of each."""
    shards: np.ndarray | None
    """(len(rows),) int32 tar shard of each; None where the pictures lie in none."""
    class_names: list[str]
    """Identities in the order of the classifier's rows."""
    held_out: int
    """People held out whole: they judge the embedding and are no classes."""
    validation: Judged
    pairs: PairCheck | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of every picture found that is not used."""
    digest: str = ""
    """Of the scan: the same data, or not."""
    split_seed: int = 0
    """What drew who is held out."""
    trained_on: str = ""
    """Digest of the pictures to train on, unreadable ones among them."""
    fixed: defaultdict[str, list[torch.Tensor | None]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """What of the judged pictures' embeddings no step changes, of each batch, by what is judged:
    found when they are judged first."""

    @property
    def digests(self) -> dict[str, str]:
        """What must be as it was for a run to go on, each with what it says of the data."""
        digests = {"data": self.digest, "classes": digest_of(self.class_names)}
        digests["split"] = self.trained_on  # which hangs on the model to start from too
        if self.validation.digest:
            digests["val"] = self.validation.digest
        if self.pairs:
            numbers = np.stack([self.pairs.left, self.pairs.right, self.pairs.genuine])
            digests["pairs"] = digest_of([numbers.astype("<i8").tobytes()])
        return digests

    @property
    def banks(self) -> list[Bank]:
        """All banks that pictures come from, each once, in the same order everywhere."""
        judged = [self.validation.bank] if self.validation.bank is not self.bank else []
        return [self.bank, *judged, *([self.pairs.bank] if self.pairs else [])]


def load_data(
    options: TrainOptions,
    found: Scan,
    classes: list[str] | None,
    split_seed: int,
    open_bank: OpenBank,
) -> TrainingData:
    """Decode and split the pictures.

    Args:
        classes: identities of a classifier that is kept; people whom it does not know are held
            out. None makes everybody a class who is trained on.
        split_seed: draws who is held out.
        open_bank: `pictures.open_bank` for the run's network and processes.

    Raises:
        InputError: nothing is left to train on, or the validation data are of no use.
    """
    share = _share(options.val)
    judges: Sequence[Picture] = ()
    if share is None:
        folder = Path(options.val)
        require_elsewhere(options.out, folder)
        judges = open_source(folder, follow_links=options.follow_links).pictures
    wanted = np.flatnonzero(found.usable(options.min_pictures))
    pictures = Chosen(pictures=found.source.pictures, rows=wanted)
    people = found.people[wanted]
    bank, failed = open_bank(pictures)
    left_out = found.left_out(options.min_pictures)
    left_out += [(pictures[row].key, reason) for row, reason in failed]
    names = np.array(found.names)
    strangers = np.flatnonzero(~np.isin(names, classes)) if classes else None
    # Whoever is held out is so whatever can be read: a run may be gone on with where pictures that
    # were left out before are found unreadable only when they are wanted.
    split = split_pictures(people, share or 0.0, split_seed, strangers)
    unreadable = [row for row, _ in failed]
    rows, classify, verify = (
        np.setdiff1d(part, unreadable) for part in (split.train, split.classify, split.verify)
    )
    if share is None:
        left_out += [(pictures[row].key, UNKNOWN_PERSON) for row in verify.tolist()]
        verify = verify[:0]
    trained = np.unique(people[rows])
    if len(trained) < 2:
        raise InputError(f"{options.data}: fewer than two identities are left to train on")
    class_names = classes or names[trained].tolist()
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number.get(name, -1) for name in found.names], dtype=np.int64)[people]
    overlap = partial(also_trained_on, pictures=found.source.pictures, trained=wanted[rows])
    validation = Judged(
        bank=bank,
        classify_rows=classify,
        classify_labels=labels[classify],
        verify_rows=verify,
        verify_people=people[verify],
    )
    if share is None:
        validation = _folder_validation(judges, options.val, number, open_bank, overlap)
    return TrainingData(
        bank=bank,
        rows=rows,
        labels=labels[rows],
        shards=None if found.shards is None else found.shards[wanted][rows],
        class_names=class_names,
        held_out=len(np.setdiff1d(people[verify], trained)),
        validation=validation,
        pairs=_pair_check(options, open_bank, overlap, number) if options.pairs else None,
        left_out=left_out,
        digest=found.digest,
        split_seed=split_seed,
        trained_on=digest_of([found.digest, wanted[split.train].astype("<i8").tobytes()]),
    )


def _share(val: str) -> float | None:
    """The share to hold out, or None where `--val` names a folder."""
    try:
        share = float(val)
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise InputError(f"--val {val}: a share to hold out is 0 to below 1")
    return share


def _folder_validation(
    every: Sequence[Picture],
    folder: str,
    number: dict[str, int],
    open_bank: OpenBank,
    overlap: Callable[[Sequence[Picture]], int],
) -> Judged:
    """Judge by a folder: known people the classifier, all people the embedding."""
    pictures = [p for p in every if p.identity]
    bank, failed = open_bank(pictures)
    usable = np.setdiff1d(np.arange(len(pictures)), [row for row, _ in failed])
    if not len(usable):
        raise InputError(f"--val {folder}: no usable picture of a named person")
    if idle := len(every) - len(usable):
        logger.warning(
            "%d of %d pictures of --val are unreadable or of nobody, and judge nothing",
            idle,
            len(every),
        )
    if both := overlap(pictures):
        logger.warning(
            "%d of %d pictures of --val are trained on too, so val_accuracy and val_auc are too "
            "high; take them out of DATA or of --val",
            both,
            len(every),
        )
    names = [p.identity for p in pictures]
    people = np.unique(names, return_inverse=True)[1]
    labels = np.array([number.get(name, -1) for name in names], dtype=np.int64)
    known = usable[labels[usable] >= 0]
    return Judged(
        bank=bank,
        classify_rows=known,
        classify_labels=labels[known],
        verify_rows=usable,
        verify_people=people[usable],
        digest=digest_of_pictures(pictures),
    )


def _pair_check(
    options: TrainOptions,
    open_bank: OpenBank,
    overlap: Callable[[Sequence[Picture]], int],
    classes: Container[str],
) -> PairCheck:
    assert options.pairs is not None
    if options.pairs_root is None:
        raise InputError("--pairs needs --pairs-root, the folder that the list's pictures lie in")
    listed = read_list(
        options.pairs, format=options.pairs_format or "auto", option="--pairs-format"
    )
    if not isinstance(listed, PairList) or listed.templates or listed.pictures:
        raise InputError(f"--pairs {options.pairs}: give a list of pairs of pictures")
    pictures = open_source(options.pairs_root, follow_links=options.follow_links).pictures
    keys = [p.key for p in pictures]
    way = find_way(listed, keys)
    if way.told():
        logger.warning("the names of --pairs were found %s", way.told())
    found = resolve(listed, keys, way)
    needed = np.unique(found[found >= 0])
    judges = [pictures[row] for row in needed]
    if both := overlap(judges):
        logger.warning(
            "%d of %d pictures of --pairs are trained on too, so pairs_auc is too high; take them "
            "out of DATA, or give pairs of others",
            both,
            len(judges),
        )
    elif known := sum(name in classes for name in {judge.identity for judge in judges}):
        logger.warning(
            "%d people of --pairs have the names of people who are trained on, so pairs_auc is not "
            "of strangers alone",
            known,
        )
    bank, failed = open_bank(judges)
    place = np.full(len(pictures) + 1, -1)  # the last stands for "not found", row -1
    place[needed] = np.arange(len(needed))
    place[needed[[row for row, _ in failed]]] = -1
    left, right = place[found[listed.left]], place[found[listed.right]]
    there = (left >= 0) & (right >= 0)
    if not (listed.genuine[there].any() and not listed.genuine[there].all()):
        raise InputError(
            f"--pairs {options.pairs}: of {len(there)} pairs {int(there.sum())} lie in "
            f"{options.pairs_root}, and they hold no genuine or no impostor pair; "
            "check --pairs-root"
        )
    if not there.all():
        logger.warning(
            "%d of %d pairs of --pairs have a missing or unreadable picture and are left out of "
            "pairs_auc; verify-pairs names them",
            int((~there).sum()),
            len(there),
        )
    return PairCheck(bank=bank, left=left[there], right=right[there], genuine=listed.genuine[there])
