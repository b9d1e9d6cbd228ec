from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from faceidx import children
from faceidx.errors import JobError
from faceidx.images import worker, workers
from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepare, Prepared
from faceidx.images.workers import Workers
from tests.images.odd_prepares import Environment, Obedient


def _listed(*words: str) -> list[tuple[int, Picture]]:
    return [
        (number, Picture(f"{number}.png", "", Path("nowhere"), word.encode()))
        for number, word in enumerate(words)
    ]


def _results(
    words: list[str], prepare: Prepare | None = None, *, count: int = 2
) -> list[Prepared | str]:
    listed = _listed(*words)
    with Workers(count) as several:
        made = list(
            several.prepare(iter(listed), prepare or Obedient(), ahead=8, total=len(listed))
        )
    assert [(tag, picture) for tag, picture, _ in made] == listed
    return [result for _, _, result in made]


def test_results_come_in_order_with_all_that_was_made() -> None:
    results = _results(["a", "b 3", "refuse", "far", "found 2", "none 0"] * 20)
    for first in range(0, len(results), 6):
        a, b, refused, far, found, none = results[first : first + 6]
        assert isinstance(a, Prepared) and isinstance(b, Prepared) and isinstance(far, Prepared)
        assert isinstance(found, Prepared) and isinstance(none, Prepared)
        np.testing.assert_array_equal(a.crops, np.full((1, 2, 3, 3), ord("a"), np.uint8))
        assert b.crops.shape == (3, 2, 3, 3)
        assert refused == "refused"
        assert (a.far, far.far) == (False, True)
        assert a.faces is None and found.faces is not None
        assert found.faces["boxes"][:, 0].tolist() == [0, 1]
        assert none.crops.shape == (0, 2, 3, 3)


def test_a_picture_that_kills_its_worker_fails_alone() -> None:
    words = ["a"] * 40 + ["crash"] + ["b"] * 40 + ["exit"] + ["c"] * 5 + ["memory"]
    results = _results(words)
    failed = {words[i]: r for i, r in enumerate(results) if isinstance(r, str)}
    assert failed == {
        "crash": "kills its decoder (SIGSEGV)",
        "exit": "kills its decoder (exit code 7)",
        "memory": "out of memory while decoding",
    }


def test_a_worker_that_sends_something_else_is_not_believed() -> None:
    a, lie, b = (_results([word])[0] for word in ("a", "lie", "b"))
    assert lie == "kills its decoder (exit code 0)"
    assert isinstance(a, Prepared) and isinstance(b, Prepared)


_NOTHING = '{"faces": 0, "found": false, "far": false}'


@pytest.mark.parametrize(
    "lines",
    [
        "",
        f"{_NOTHING}, {_NOTHING}",
        '{"reason": 5}',
        '{"reason": "\\ud800"}',
        '{"faces": 0, "found": false}',
    ],
)
def test_a_worker_that_was_taken_over_costs_its_picture_alone(
    lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_idle", [])
    forged = f'forge {{"pictures": [{lines}], "shared": 0}}'
    a, forgery, b = _results(["a", forged, "b"], count=1)
    assert forgery == "kills its decoder (exit code 0)"
    assert isinstance(a, Prepared) and isinstance(b, Prepared)
    workers._end_all()


@pytest.mark.parametrize(
    "told",
    [
        "[]",
        "{}",
        '{"pictures": 3, "shared": 0}',
        '{"pictures": [{"faces": "1", "found": true}], "shared": 0}',
        '{"pictures": [{"faces": 1, "found": false, "far": false}], "shared": "18"}',
        '{"pictures": [{"faces": 1, "found": false, "far": false}], "shared": 17}',
        '{"pictures": [{"faces": 2, "found": false, "far": false}], "shared": 18}',
        '{"pictures": [{"faces": 9, "found": false, "far": false}], "shared": 162}',
    ],
)
def test_a_reply_that_makes_no_sense_is_none(told: str) -> None:
    theirs, ours = Pipe()
    for part in (told.encode(), b"", b""):
        theirs.send_bytes(part)
    with pytest.raises((ValueError, TypeError, LookupError)):
        worker.read_reply(ours, 1, (2, 3), np.zeros(40, np.uint8))


@pytest.mark.parametrize(("can_share", "room"), [(True, 40), (True, 1 << 20), (False, 0)])
def test_faces_come_through_memory_that_both_see_or_the_socket(
    monkeypatch: pytest.MonkeyPatch, can_share: bool, room: int
) -> None:
    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr(workers, "can_share", can_share)
    monkeypatch.setattr(workers, "_ROOM", room)
    words = [f"{letter} {1 + place % 5}" for place, letter in enumerate("abcdefghij" * 5)]
    for word, result in zip(words, _results(words), strict=True):
        assert isinstance(result, Prepared)
        assert len(result.crops) == int(word[2:])
        assert (result.crops == ord(word[0])).all()
    workers._end_all()


def test_a_picture_that_takes_for_ever_fails_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The worker's own limit is lowered where it is started.
    lowered = children._START.replace(
        "getattr(", "import faceidx.images.worker as w; w.SECONDS_A_PICTURE = 0.2; getattr("
    )
    monkeypatch.setattr(children, "_START", lowered)
    monkeypatch.setattr(workers, "_idle", [])
    results = _results(["a", "loop", "b"])
    assert [r for r in results if isinstance(r, str)] == ["takes more than 60 s to decode"]
    workers._end_all()


def test_a_worker_that_somebody_else_kills_costs_no_picture(tmp_path: Path) -> None:
    results = _results(["a", "once", "b"], Obedient(once=tmp_path / "noted"))
    assert (tmp_path / "noted").exists()
    assert all(isinstance(result, Prepared) for result in results)


def test_an_idle_worker_that_has_died_is_replaced() -> None:
    _results(["a"])
    for idle in workers._idle:
        idle._child.process.kill()
        idle._child.process.wait()
    assert all(isinstance(result, Prepared) for result in _results(["a", "b"]))


def test_workers_hold_nothing_but_the_decoder_and_are_kept() -> None:
    first = _results(["a"], Environment(), count=1)
    again = _results(["a"], Environment(), count=1)
    assert first == again
    parent, loaded, _ = str(first[0]).split(" ", 2)
    assert int(parent) == os.getpid()
    assert loaded == "[]"


def test_no_more_than_the_window_is_under_way() -> None:
    taken = 0

    def source() -> Iterator[tuple[int, Picture]]:
        nonlocal taken
        for item in _listed(*["a"] * 2000):
            taken += 1
            yield item

    with Workers(2) as several:
        seen = 0
        for _ in several.prepare(source(), Obedient(), ahead=64, total=2000):
            seen += 1
            # The window, and the request that the one just seen came in.
            assert taken - seen <= 64 + 16
    assert seen == 2000


def test_what_cannot_be_started_is_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(JobError, match="no process can be started"):
        _results(["a"])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JobError, match="ended at its start"):
        _results(["a"])


def test_a_worker_that_somebody_kills_while_it_starts_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/starts\n"
        f'[ $(wc -l < {tmp_path}/starts) -lt 3 ] && kill -9 $$\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o700)
    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr(workers, "_SECONDS_TO_START_AGAIN", 0.0)
    monkeypatch.setattr(sys, "executable", str(python))
    (result,) = _results(["a"])
    assert isinstance(result, Prepared)
    assert (tmp_path / "starts").read_text().count("\n") == 3


def test_a_worker_that_somebody_kills_before_it_has_its_memory_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = 0

    def killed_at_first(self: workers._Worker) -> np.ndarray:
        nonlocal starts
        starts += 1
        if starts == 1:
            self._child.process.kill()
            self._child.process.wait()
        return shared(self)

    shared = workers._Worker._shared
    monkeypatch.setattr(workers._Worker, "_shared", killed_at_first)
    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr(workers, "_SECONDS_TO_START_AGAIN", 0.0)
    (result,) = _results(["a"])
    assert isinstance(result, Prepared)
    assert starts == 2
    workers._end_all()


def test_of_many_pictures_workers_start_before_the_first_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr(workers, "_MANY", 1)

    def pictures() -> Iterator[tuple[int, Picture]]:
        end = time.monotonic() + 60
        while not workers._idle and time.monotonic() < end:
            time.sleep(0.01)
        assert workers._idle
        yield 0, Picture("a", "", Path(), b"a")

    with Workers(1) as several:
        found = list(several.prepare(pictures(), Obedient(), ahead=1, total=1))
    assert isinstance(found[0][2], Prepared)


_KILLED = """
import sys, time
from pathlib import Path
from faceidx.images import workers
from faceidx.images.pictures import Picture
from tests.images.odd_prepares import Obedient

with workers.Workers(1) as several:
    list(several.prepare([(0, Picture("a", "", Path(), b"a"))], Obedient(), ahead=1, total=1))
    print(workers._idle[0]._child.process.pid, flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _KILLED],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert _alive(pid)
    parent.kill()
    parent.communicate()
    ended = time.monotonic() + 30
    while _alive(pid) and time.monotonic() < ended:
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_reply_holds_no_pickle() -> None:
    # A worker may have been taken over by a hostile picture: what it sends must be inert.
    source = Path(worker.__file__).read_text("utf-8")
    reading = source[source.index("def read_reply") :]
    assert ".recv()" not in reading
    assert "load(" not in reading.replace("json.loads(", "")
