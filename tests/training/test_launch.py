"""Starting several processes without an outside launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from faceidx.errors import InputError, JobError
from faceidx.progress import Progress, ProgressCallback
from faceidx.training.launch import (
    Hardware,
    _threads_each,
    launch,
    require_launcher,
    settle_hardware,
)
from faceidx.training.options import TrainOptions


def _gather_pids(fabric: Fabric, job: int, progress: ProgressCallback) -> tuple[int, list[int]]:
    pids = fabric.all_gather(torch.tensor([os.getpid()], dtype=torch.int64))
    progress(Progress("test", fabric.world_size, job))
    return fabric.world_size, sorted(pids.flatten().tolist())


def _fail(fabric: Fabric, job: str, progress: ProgressCallback) -> None:
    raise JobError(job)


def _two() -> Hardware:
    return Hardware(on_gpu=False, devices=2, num_nodes=1, precision="fp32")


def test_two_cpu_processes_really_run_and_report_back() -> None:
    reports: list[Progress] = []
    world, pids = launch(_two(), _gather_pids, 7, reports.append)
    assert world == 2
    assert len(set(pids)) == 2 and os.getpid() not in pids
    assert reports == [Progress("test", 2, 7)]


def _stumble(fabric: Fabric, job: str, progress: ProgressCallback) -> None:
    if fabric.is_global_zero:
        raise ValueError(job)
    fabric.barrier()  # which fails, as one process is gone


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [(_fail, JobError, r"^it is full$"), (_stumble, RuntimeError, r"(?s)in _stumble.*it is full$")],
)
def test_an_error_in_a_child_is_raised_here_as_it_was_and_leaves_no_file_behind(
    work: Callable[..., None],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(error, match=message):
        launch(_two(), work, "it is full", lambda _: None)
    assert not list(tmp_path.glob("pytorch-errorfile-*"))  # as torch's own way of telling does


def _options(**more: object) -> TrainOptions:
    return TrainOptions(data=Path("d"), out=Path("o"), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"devices": "none"}, "--devices none"),
        ({"devices": "0"}, "--devices 0"),
        ({"devices": "²"}, "--devices ²"),
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a GPU"),
        ({"precision": "int3", "device": "cpu"}, "int3"),
    ],
)
def test_hardware_that_makes_no_sense_is_refused(more: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settle_hardware(_options(**more))


def test_one_process_is_the_default_on_a_cpu() -> None:
    assert settle_hardware(_options(device="cpu")).processes == 1


def test_machines_that_no_launcher_has_started_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hardware = settle_hardware(_options(device="cpu", num_nodes=2))
    assert hardware.processes == 2  # as `--dry-run` plans with
    with pytest.raises(InputError, match=r"--num-nodes 2: have torchrun or srun start"):
        require_launcher(hardware)
    torchrun = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2", "RANK": "0"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    require_launcher(settle_hardware(_options(device="cpu")))


@pytest.mark.parametrize(
    ("device", "precision"), [("cuda", "fp16"), ("cuda:0", "bf16"), ("cuda:1", "fp16")]
)
def test_the_precision_is_one_that_the_named_gpus_are_fast_at(
    device: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    fast = {"cuda:0": ["bf16"], "cuda:1": ["fp16"]}
    monkeypatch.setattr("faceidx.training.launch.fast_precisions", fast.get)
    assert settle_hardware(_options(device=device)).precision == precision


def test_processes_share_the_cores_that_they_may_use_and_obey_who_wants_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("faceidx.training.launch.usable_cores", lambda: 6)  # of a larger machine
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert [_threads_each(processes) for processes in (1, 2, 4, 12)] == [6, 3, 1, 1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # as OMP_NUM_THREADS said
    assert [_threads_each(processes) for processes in (1, 2, 4)] == [2, 2, 1]


def _write_for_ever(fabric: Fabric, file: Path, progress: ProgressCallback) -> None:
    file.with_name(f"{os.getpid()}.pid").touch()
    while True:
        time.sleep(0.05)
        file.write_text(str(time.time()))


_STARTER = """
import signal, sys
from pathlib import Path
from faceidx.training.launch import Hardware, launch
from tests.training.test_launch import _write_for_ever
ignored = sys.argv[2] == "ignored"  # as a shell's script has it for what it starts by &
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
hardware = Hardware(on_gpu=False, devices=2, num_nodes=1, precision="fp32")
if __name__ == "__main__":
    try:
        launch(hardware, _write_for_ever, Path(sys.argv[1]) / "written", lambda _: None)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _start(folder: Path, interrupts: str) -> subprocess.Popen[str]:
    """Start two processes that work for ever, in a session of their own."""
    script = folder / "start.py"
    script.write_text(_STARTER)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), interrupts],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_end(pids: Iterable[int]) -> None:
    until = time.monotonic() + 30
    while alive := [pid for pid in pids if _is_alive(pid)]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130)])
def test_no_process_outlives_the_one_that_started_it(
    sent: signal.Signals, code: int, tmp_path: Path
) -> None:
    starter = _start(tmp_path, "ignored")
    while len(pids := [int(file.stem) for file in tmp_path.glob("*.pid")]) < 2:
        assert starter.poll() is None
        time.sleep(0.05)
    starter.send_signal(sent)  # which the two do not listen to yet, as while they load torch
    assert starter.wait(60) == code
    _wait_for_end(pids)


@pytest.mark.parametrize(
    ("loading", "send"), [(True, os.killpg), (False, os.kill)], ids=["loading", "working"]
)
def test_an_interrupt_ends_all_processes_at_once_and_without_tracebacks(
    loading: bool, send: Callable[[int, int], None], tmp_path: Path
) -> None:
    """A terminal's Ctrl-C goes to all, `kill -INT` and a notebook's button to the starter alone."""
    starter = _start(tmp_path, "heard")
    threads = Path(f"/proc/{starter.pid}/task")

    def children() -> list[int]:
        return [int(pid) for file in threads.glob("*/children") for pid in file.read_text().split()]

    while len(children() if loading else list(tmp_path.glob("*.pid"))) < 2:
        assert starter.poll() is None
        time.sleep(0.01)
    time.sleep(0.5 * loading)
    started = children()
    assert loading == (not list(tmp_path.glob("*.pid")))
    send(starter.pid, signal.SIGINT)
    _, told = starter.communicate(timeout=60)
    assert (starter.returncode, told) == (130, "")
    _wait_for_end(started)
