"""Starting one process or several, through Lightning Fabric; no outside launcher is needed."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric

from faceidx.errors import FaceidxError, InputError
from faceidx.models.device import resolve_device
from faceidx.models.engines import fast_precisions
from faceidx.progress import Progress, ProgressCallback
from faceidx.resources import usable_cores
from faceidx.training.options import TrainOptions
from faceidx.training.stop import sigterm_to_children

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[Fabric, Job, ProgressCallback], Result]

# It announces every process and every precision, whoever asked.
for _name in ("lightning_fabric", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)

# It tells of ending the processes beside one that failed, whose error is told here.
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(kw_only=True)
class Hardware:
    """What a run runs on."""

    on_gpu: bool
    devices: list[int] | int
    """Numbers of the GPUs, or how many CPU processes, on this machine."""
    num_nodes: int
    precision: str

    @property
    def processes(self) -> int:
        """Over all machines."""
        here = self.devices if isinstance(self.devices, int) else len(self.devices)
        return here * self.num_nodes

    @property
    def starts_processes(self) -> bool:
        """Whether this process starts those that train, rather than being one of them."""
        return self.processes > 1 and _outside() is None


def settle_hardware(options: TrainOptions) -> Hardware:
    """Turn `--device`, `--devices` and `--precision` into what is there.

    Raises:
        InputError: more is asked for than there is.
    """
    device = resolve_device(options.device)
    on_gpu = device.startswith("cuda")
    if options.precision not in ("auto", *PRECISIONS):
        raise InputError(f"--precision {options.precision}: give auto, fp32, bf16 or fp16")
    if not on_gpu and options.precision == "fp16":
        raise InputError("--precision fp16 needs a GPU; give bf16 or fp32")
    outside = _outside()
    devices = outside.here if outside else _devices(options.devices, device)
    precision = options.precision
    return Hardware(
        on_gpu=on_gpu,
        devices=devices,
        num_nodes=outside.nodes if outside else options.num_nodes,
        precision=_auto_precision(on_gpu, devices) if precision == "auto" else precision,
    )


def require_launcher(hardware: Hardware) -> None:
    """Refuse processes that nobody would start: this command starts those of one machine.

    Raises:
        InputError: several machines are to take part, and no launcher has started this process.
    """
    if hardware.num_nodes > 1 and hardware.starts_processes:
        raise InputError(
            f"--num-nodes {hardware.num_nodes}: have torchrun or srun start the command on each "
            "machine; then --num-nodes and --devices need not be given"
        )


@dataclass(kw_only=True)
class _Outside:
    """What an outside launcher has started."""

    rank: int
    here: int
    """Processes on this machine."""
    nodes: int


def _outside() -> _Outside | None:
    """Read what torchrun or Slurm say of this process; None where neither has started it."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        here, world = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        return _Outside(rank=int(environment["RANK"]), here=here, nodes=max(1, world // here))
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        nodes = int(environment.get("SLURM_NNODES", "1"))
        here = int(environment["SLURM_NTASKS"]) // nodes
        return _Outside(rank=int(environment["SLURM_PROCID"]), here=here, nodes=nodes)
    return None


def is_first_process() -> bool:
    """Whether this is the one process that writes, among those that an outside launcher started."""
    outside = _outside()
    return outside is None or outside.rank == 0


def _devices(wanted: str, device: str) -> list[int] | int:
    if wanted != "auto" and (not wanted.isdecimal() or int(wanted) < 1):
        raise InputError(f"--devices {wanted}: give auto or a number from 1")
    if not device.startswith("cuda"):
        return 1 if wanted == "auto" else int(wanted)
    _, _, number = device.partition(":")
    if number:
        if wanted not in ("auto", "1"):
            raise InputError(f"--device {device} is one GPU; give --device cuda for {wanted}")
        return [int(number)]
    there = torch.cuda.device_count()
    count = there if wanted == "auto" else int(wanted)
    if count > there:
        raise InputError(f"--devices {wanted}: there are {there} GPUs")
    return list(range(count))


def _auto_precision(on_gpu: bool, devices: list[int] | int) -> str:
    """What is fast on all of the devices."""
    if not on_gpu:
        return next(iter(fast_precisions("cpu")), "fp32")
    numbers = range(devices) if isinstance(devices, int) else devices
    bf16 = all("bf16" in fast_precisions(f"cuda:{number}") for number in numbers)
    return "bf16" if bf16 else "fp16"


def launch(
    hardware: Hardware, work: Work[Job, Result], job: Job, progress: ProgressCallback
) -> Result:
    """Run `work` in every process and return what that of rank 0 returns.

    Under torchrun or Slurm this process is one of those that they started; else, where more than
    one is wanted, child processes are started here and report back through a queue.

    Raises:
        FaceidxError: as `work` raised it, from whatever process.
        KeyboardInterrupt: the processes were asked to end.
    """
    single = hardware.processes == 1
    fabric = Fabric(
        accelerator="cuda" if hardware.on_gpu else "cpu",
        devices=hardware.devices,
        num_nodes=hardware.num_nodes,
        strategy="auto" if single else "ddp_spawn" if hardware.starts_processes else "ddp",
        precision=PRECISIONS[hardware.precision],  # type: ignore[arg-type]
    )
    if hardware.starts_processes:
        return _launch_children(fabric, hardware, work, job, progress)
    fabric.launch()
    return work(fabric, job, progress)


def _launch_children(
    fabric: Fabric,
    hardware: Hardware,
    work: Work[Job, Result],
    job: Job,
    progress: ProgressCallback,
) -> Result:
    queue: Any = multiprocessing.get_context("spawn").SimpleQueue()
    errors: list[BaseException] = []

    def listen() -> None:
        while (message := queue.get()) is not None:
            if isinstance(message, Progress):
                progress(message)
            else:
                errors.append(message)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    start = partial(
        fabric.launch,
        _child,  # type: ignore[arg-type]
        work,
        _Parcel(job),
        queue,
        hardware.processes,
    )
    try:
        with sigterm_to_children() as stop:
            result: Result = _without_interrupts(start)
    except Exception:
        queue.put(None)
        listener.join()
        if errors:
            # What else went wrong did so because one process was gone.
            raise min(errors, key=lambda error: isinstance(error, _UnforeseenError)) from None
        if stop.asked:  # before they listened to it: it ended them
            raise KeyboardInterrupt from None
        raise
    queue.put(None)
    return result


class _UnforeseenError(RuntimeError):
    """What no `FaceidxError` tells of, with the traceback of the process that it happened in."""


def _without_interrupts(start: Callable[[], Result]) -> Result:
    """Start child processes that never see the terminal's Ctrl-C, and wait for what they return.

    It is for this process, which kills them: what is saved is whole at any moment. They would end
    with tracebacks while they load torch, and not at all where this process alone is interrupted.
    """
    blocked = (signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it of the thread
    with ThreadPoolExecutor(1, "children", signal.pthread_sigmask, blocked) as pool:
        future = pool.submit(start)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # some may be about to start
                for child in multiprocessing.active_children():
                    child.kill()
                wait([future], timeout=0.1)
            raise


class _Parcel:
    """Takes a job to a child untouched: Fabric would take dataclasses apart to look for tensors."""

    def __init__(self, content: Any) -> None:
        self.content = content


def _child(
    fabric: Fabric, work: Work[Job, Result], parcel: _Parcel, queue: Any, processes: int
) -> Result:
    os.umask(0o077)
    _end_with_the_parent()
    if fabric.device.type == "cpu":
        torch.set_num_threads(_threads_each(processes))
    try:
        result = work(fabric, parcel.content, queue.put if fabric.is_global_zero else _drop)
        # A process that ends while its communication threads run is aborted by the C++ library.
        fabric.barrier()
        torch.distributed.destroy_process_group()
        return result
    except (FaceidxError, KeyboardInterrupt) as error:
        queue.put(error)
    except Exception:
        queue.put(_UnforeseenError(traceback.format_exc()))
    # This process is done. The error itself torch would leave in a file in the temporary folder.
    raise SystemExit(1)


def _threads_each(processes: int) -> int:
    """A share of the cores: with a thread a core in each process they would fight over them."""
    return min(torch.get_num_threads(), max(1, usable_cores() // processes))


def _end_with_the_parent() -> None:
    """Have this process end as soon as the one that started it is gone, however that ended.

    Else it would go on writing a run that the same command, given again, goes on with as well.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _drop(_: Progress) -> None:
    """Only the process of rank 0 reports."""
