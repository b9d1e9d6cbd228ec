"""Merging beside the making of shards: the same file, whole or not at all."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from faceidx.embedding.merge import merge_shards
from faceidx.embedding.merge_ahead import MergeAhead
from faceidx.embedding.pipeline import Embedded
from faceidx.embedding.shards import write_shard
from faceidx.embedding.store import Left, Origin
from faceidx.errors import JobError
from tests.embedding.test_embed import _content

_ORIGIN = Origin(model="m", fingerprint="f", preprocessing={"size": 16})
_FACTS = {"fidelity": "{}"}


def _write(path: Path, number: int) -> None:
    count = number % 4  # the first has no rows
    keys = [f"{number}/{row}.png" for row in range(count)]
    vectors = np.random.default_rng(number).standard_normal((count, 8)).astype(np.float32)
    embedded = Embedded(
        vectors=vectors,
        norms=np.linalg.norm(vectors, axis=1),
        paths=keys,
        identities=[str(number)] * count,
        stamps=[f"stamp {key}" for key in keys],
        left=Left(failed=[(f"{number}/x.png", "damaged")]),
        pictures=count,
    )
    write_shard(path, embedded, _ORIGIN, "float32")


def _ahead(out: Path) -> MergeAhead:
    return MergeAhead(out, _ORIGIN, dtype="float32", expected=14, attributes=_FACTS)


def test_shards_may_come_late_and_in_any_order(tmp_path: Path) -> None:
    shards = [tmp_path / f"{number}.h5" for number in range(9)]
    _write(shards[3], 3)
    with _ahead(tmp_path / "ahead.h5") as ahead:
        for shard in shards:
            ahead.follow(shard)
        for number in (1, 0, 8, 2, 7, 4, 6, 5):
            _write(shards[number], number)
        ahead.finish()
    merge_shards(
        tmp_path / "after.h5", shards, _ORIGIN, dtype="float32", expected=14, attributes=_FACTS
    )
    assert _content(tmp_path / "ahead.h5") == _content(tmp_path / "after.h5")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_left_before_its_end_it_leaves_nothing(tmp_path: Path) -> None:
    shards = [tmp_path / f"{number}.h5" for number in (1, 2)]
    _write(shards[0], 1)
    with pytest.raises(KeyboardInterrupt), _ahead(tmp_path / "out.h5") as ahead:
        for shard in shards:
            ahead.follow(shard)
        while len(_files(tmp_path)) == 1:  # until it has begun to write
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert _files(tmp_path) == ["1.h5"]


def test_a_damaged_shard_is_the_error_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "1.h5").write_bytes(b"nothing")
    with _ahead(tmp_path / "out.h5") as ahead:
        ahead.follow(tmp_path / "1.h5")
        with pytest.raises(Exception, match=r"1\.h5"):
            ahead.finish()
    assert _files(tmp_path) == ["1.h5"]


def test_a_process_that_dies_is_a_failed_job(tmp_path: Path) -> None:
    with _ahead(tmp_path / "out.h5") as ahead:
        killer = threading.Timer(0.1, ahead._child.process.kill)
        killer.start()
        killer.join()
        ahead._child.process.wait()
        ahead.follow(tmp_path / "1.h5")
        with pytest.raises(JobError, match=r"out\.h5 died .*the same command goes on"):
            ahead.finish()
