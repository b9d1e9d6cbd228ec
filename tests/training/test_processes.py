"""Several processes, by whatever launcher, against one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric import Fabric

from faceidx.progress import ProgressCallback
from faceidx.training.job import Job, settle_job
from faceidx.training.launch import Hardware, launch, settle_hardware
from faceidx.training.network import head_record
from faceidx.training.run import set_up
from faceidx.training.step import parts_of_batch
from faceidx.training.stop import Stop
from faceidx.training.validate import validate
from tests.training.conftest import paint_people, quick

# A low rate: at a high one rounding grows to more than the tolerance within a few steps.
_WORDS = ["--arch", "mobilefacenet", "--image-size", "32", "--embedding-dim", "16", "--epochs", "1"]
_WORDS += ["--batch-size", "23", "--lr", "1e-4", "--device", "cpu", "--precision", "fp32", "--json"]


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_part_of_a_batch_holds_the_same_pictures_however_many_processes_share_it(
    processes: int, parts: int
) -> None:
    total = 13
    whole = parts_of_batch(total, min(parts, total // processes), 1, 0)
    shares = [parts_of_batch(total, parts, processes, number) for number in range(processes)]
    assert {len(share) for share in shares} == {len(whole)}
    for turn, part in enumerate(whole):
        theirs = [place for share in shares for place in share[turn].tolist()]
        assert sorted(theirs) == part.tolist()
        assert all(len(share[turn]) for share in shares)
    counts = [sum(map(len, share)) for share in shares]
    assert sum(counts) == total and max(counts) - min(counts) <= max(1, processes - 1)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _command(people: Path, run: Path) -> list[str]:
    return ["-m", "faceidx", "train", str(people), "--out", str(run), *_WORDS]


def _torchrun(people: Path, run: Path) -> list[str]:
    """What stands on stdout of two processes that torchrun starts, together."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    command = [sys.executable, *launcher, _free_port(), *_command(people, run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [done.stdout]


def _srun(people: Path, run: Path) -> list[str]:
    """What stands on stdout of each of two tasks, with what srun puts into their environment."""
    environment = os.environ | {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "faces", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": _free_port(),
    }  # fmt: skip
    tasks = [
        subprocess.Popen(
            [sys.executable, *_command(people, run)],
            env=environment | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    ended = [task.communicate(timeout=300) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], ended
    return [out for out, _ in ended]


def _line(run: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads((run / "metrics.jsonl").read_text())
    return line


def test_torchrun_and_slurm_give_the_curve_of_one_process_and_one_of_them_speaks(
    people: Path, tmp_path: Path
) -> None:
    alone = [sys.executable, *_command(people, tmp_path / "one")]
    subprocess.run(alone, check=True, capture_output=True, timeout=300)
    for start in (_torchrun, _srun):
        run = tmp_path / start.__name__
        spoken = "".join(start(people, run))
        result = json.loads(spoken)
        assert result["epochs"] == 1
        assert _line(run)["loss"] == pytest.approx(_line(tmp_path / "one")["loss"], abs=1e-5)


def _judge(fabric: Fabric, job: Job, progress: ProgressCallback) -> dict[str, float | None]:
    run = set_up(fabric, job, Stop())
    head = head_record(run.plain, job.recipe)
    return validate(fabric, run.judged, job.data, head, job.recipe.batch_size)


@pytest.mark.parametrize("shards", ["off", "on"])
def test_two_processes_judge_a_network_as_one_does(shards: str, tmp_path: Path) -> None:
    people = paint_people(tmp_path / "people", 24, 4)
    rows = [f"person_{i:02d}/00.png,person_{i:02d}/01.png,1" for i in range(24)]
    rows += [f"person_{i:02d}/00.png,person_{(i + 1) % 24:02d}/01.png,0" for i in range(24)]
    (tmp_path / "pairs.csv").write_text("\n".join(["left,right,label", *rows]))
    more = {"val": "0.4", "pairs": tmp_path / "pairs.csv", "pairs_root": people}
    found = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        run.mkdir()
        options = quick(people, run, head_shards=shards if processes == 2 else "off", **more)
        job = settle_job(options, settle_hardware(options), lambda _: None)
        hardware = Hardware(on_gpu=False, devices=processes, num_nodes=1, precision="fp32")
        found.append(launch(hardware, _judge, job, lambda _: None))
    one, two = found
    assert None not in one.values()
    assert two == pytest.approx(one, abs=1e-9)
