"""Batches through a network on a GPU, the way there of one beside the computing of another."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

# Runs before a graph is captured, in which libraries choose their kernels.
_WARM_UP = 3
_SWITCH_SECONDS = 5e-4


class GpuLane:
    """Runs batches on a GPU. While one is computed the next can be begun.

    Args:
        run: (N, H, W, 3) uint8 to (N, D) float32, on the device.
        most: pictures a batch at the most.
        fixed: have every batch of `most` pictures, with whatever lies behind those there are, and
            their kernels launched as one CUDA graph.

    Attributes:
        captured: whether they are.
    """

    def __init__(
        self,
        run: Callable[[torch.Tensor], torch.Tensor],
        *,
        device: torch.device,
        most: int,
        size: tuple[int, int],
        fixed: bool,
    ) -> None:
        # Each copy and launch gives Python's lock up, and takes it back only after this long where
        # another thread computes in Python: by default 5 ms, half of what a batch takes.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        self._run, self._device, self._fixed = run, device, fixed
        self.captured = False
        self._shape = (most, *size, 3)
        self._free: list[_Slot] = []
        with torch.cuda.device(device):
            self._copying, self._computing = torch.cuda.Stream(), torch.cuda.Stream()
            self._computing.wait_stream(torch.cuda.current_stream())
            if fixed:
                self._run = self._captured(run)

    def begin(self, pictures: np.ndarray, *, flip: bool = False) -> Callable[[], np.ndarray]:
        """Begin a batch of (n, H, W, 3) uint8; what is returned waits for its (n, D) float32.

        Args:
            flip: add what the mirror images give; they are made on the device.
        """
        count = len(pictures)
        slot = self._free.pop() if self._free else _Slot(self._shape, self._device)
        slot.pixels[:count] = pictures
        there = self._shape[0] if self._fixed else count
        with torch.cuda.device(self._device), torch.inference_mode():
            with torch.cuda.stream(self._copying):
                slot.staged[:there].copy_(slot.pictures[:there], non_blocking=True)
                slot.copied.record()
            with torch.cuda.stream(self._computing):
                self._computing.wait_event(slot.copied)
                slot.take(self._rows(slot.staged[:there], flip=flip))
                slot.done.record()

        def wait() -> np.ndarray:
            rows = slot.result(count)
            self._free.append(slot)
            return rows

        return wait

    def _rows(self, staged: torch.Tensor, *, flip: bool) -> torch.Tensor:
        rows = self._run(staged)
        if not flip:
            return rows
        first = rows.clone()  # a graph writes into the same memory again
        return first + self._run(staged.flip(2))

    def _captured(
        self, run: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """`run` as a CUDA graph; as it is where it does something that a graph cannot hold."""
        pictures = torch.zeros(self._shape, dtype=torch.uint8, device=self._device)
        with torch.inference_mode():
            with torch.cuda.stream(self._computing):
                for _ in range(_WARM_UP):
                    run(pictures)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=self._computing):
                    rows = run(pictures)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:120]
                logger.warning("no CUDA graph holds the model, which is slower (%s)", reason)
                return run
        self.captured = True

        def replay(staged: torch.Tensor) -> torch.Tensor:
            pictures.copy_(staged)
            graph.replay()
            return rows

        return replay


class _Slot:
    """What a batch needs of its own on the way there and back."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.pictures = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        # NumPy copies in the thread that asks; torch would have as many join in as there are cores,
        # which those that decode have a better use for, as for those that would wait by spinning.
        self.pixels = self.pictures.numpy()
        self.staged = torch.empty(shape, dtype=torch.uint8, device=device)
        self.copied, self.done = torch.cuda.Event(), torch.cuda.Event(blocking=True)
        self._rows: Any = None

    def take(self, rows: torch.Tensor) -> None:
        if self._rows is None or len(self._rows) < len(rows):
            self._rows = torch.empty(rows.shape, pin_memory=True)
        self._rows[: len(rows)].copy_(rows, non_blocking=True)

    def result(self, count: int) -> np.ndarray:
        self.done.synchronize()
        rows: np.ndarray = self._rows[:count].numpy().copy()
        return rows
