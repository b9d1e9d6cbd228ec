"""Runs that end at any moment, in any way, and go on as if they had not."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from faceidx import files
from faceidx.errors import JobError
from faceidx.progress import Progress
from faceidx.training import guard
from faceidx.training.loop import train
from faceidx.training.options import TrainOptions
from tests.training.conftest import metrics, paint_people, quick, same_weights

# Everything that a state may hold, over three short runs.
_ALL = {
    "plain": {"clip_norm": 1.0},
    # Its weight is far too large: it diverges, goes back, and diverges again.
    "rollbacks": {"aux": ("center",), "aux_weight": 200.0, "aux_start": "2", "ema": 0.9},
    "angles": {"loss": "sphereface", "lr": 0.02, "aux": ("angle",), "aux_start": "1"},
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people with seven pictures each: three steps an epoch."""
    return paint_people(tmp_path_factory.mktemp("few") / "people", 4, 7)


@pytest.fixture(scope="module")
def unbroken(few: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each of the runs gives when nothing happens to it."""
    runs = {name: tmp_path_factory.mktemp("unbroken") / name for name in _ALL}
    for name, run in runs.items():
        train(_options(few, run, name))
    return runs


def _options(few: Path, run: Path, name: str, **more: object) -> TrainOptions:
    return quick(few, run, **{"epochs": 3, "save_steps": 1, **_ALL[name], **more})


def _same_end(run: Path, other: Path) -> bool:
    models = ("model.safetensors", "last.safetensors", "state/tensors.safetensors")
    same = all(same_weights(run / name, other / name) for name in models)
    return same and metrics(run) == metrics(other)


def _command(few: Path, run: Path, name: str) -> list[str]:
    plain = vars(TrainOptions(data=few, out=run))
    words = ["train", str(few), "--out", str(run)]
    for key, value in vars(_options(few, run, name)).items():
        if value != plain[key]:
            values = value if isinstance(value, tuple) else (value,)
            words += [w for v in values for w in (f"--{key.replace('_', '-')}", str(v))]
    return words


# The command in processes that need not load torch anew: a parent that has loaded it forks one for
# each line of arguments, kills it after so many seconds, and says how it ended.
_FORKS = """
import json, os, signal, sys, time
from faceidx.cli import run
import faceidx.training.loop
for line in sys.stdin:
    seconds, words = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        sys.argv = ["faceidx", *words]
        run()
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    """The parent of the processes that are killed."""
    with subprocess.Popen(
        [sys.executable, "-c", _FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        yield parent
        assert parent.stdin
        parent.stdin.close()


@pytest.mark.parametrize("name", _ALL)
def test_a_command_killed_at_many_moments_ends_like_an_unbroken_one(
    name: str,
    few: Path,
    unbroken: dict[str, Path],
    forks: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    assert forks.stdin and forks.stdout
    run, rng, killed, code = tmp_path / "run", np.random.default_rng(len(name)), 0, None
    while code != 0:
        seconds = float(rng.uniform(0, 0.8)) if killed < 12 else None
        forks.stdin.write(json.dumps([seconds, _command(few, run, name)]) + "\n")
        forks.stdin.flush()
        code = int(forks.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        killed += code == -signal.SIGKILL
    assert killed >= 3
    assert _same_end(run, unbroken[name])


class _DeathError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def test_a_run_that_dies_once_at_each_point_of_writing_ends_like_an_unbroken_one(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "HALVINGS", 0)  # one rollback will do
    whole, run = tmp_path / "whole", tmp_path / "run"
    short = {"epochs": 2, "save_steps": 2}
    train(_options(few, whole, "rollbacks", **short))
    died_at: set[tuple[object, ...]] = set()
    sync, state = files.sync, run / "state/state.json"
    written: list[str] = []

    def die_at_the_first_new_point(path: Path) -> None:
        """Each file and folder is flushed to disk before, and its parent after, it appears."""
        stands = state.read_bytes() if state.exists() else b""
        written.append(re.sub(r"^\.faceidx-tmp-[0-9a-f]{12}-", "", path.name))
        point = (stands, *written)
        if point not in died_at:
            died_at.add(point)
            raise _DeathError
        sync(path)

    monkeypatch.setattr(files, "sync", die_at_the_first_new_point)
    while not (state.exists() and json.loads(state.read_text())["state"]["finished"]):
        written.clear()
        with suppress(_DeathError):
            train(_options(few, run, "rollbacks", **short))
    assert len(died_at) > 40
    assert _same_end(run, whole)


@pytest.mark.parametrize("room", [30_000, 3_000_000])
def test_a_disk_that_fills_up_ends_the_run_and_the_last_good_state_goes_on(
    room: int, few: Path, unbroken: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = _options(few, run, "plain")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: Progress) -> None:
        if progress.stage == "train" and progress.done > 28:  # in the second epoch
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))

    try:
        with pytest.raises(JobError, match=r"state could not be written: File too large"):
            train(options, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    saved = json.loads((run / "state/state.json").read_text())["state"]
    assert (saved["epoch"], saved["finished"]) == (1, False)
    train(options)
    assert _same_end(run, unbroken["plain"])
