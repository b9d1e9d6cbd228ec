"""What is done to pictures in the tests of workers; the workers import it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from faceidx.images import worker
from faceidx.images.decode import PictureError
from faceidx.images.prepare import FACE, Prepared


def _text(data: Path | bytes) -> str:
    return data.read_text() if isinstance(data, Path) else data.decode()


@dataclass(frozen=True)
class Obedient:
    """A picture's text says what becomes of it: a number of faces, or what befalls the worker."""

    once: Path | None = None
    """Where it is noted that the worker was killed once already."""
    size: tuple[int, int] = (2, 3)

    def __call__(self, data: Path | bytes) -> Prepared:
        word, _, number = _text(data).partition(" ")
        if word == "refuse":
            raise PictureError("refused")
        if word == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "loop":
            while True:
                pass
        if word == "memory":
            raise MemoryError
        if word == "exit":
            os._exit(7)
        if word == "forge":
            vars(worker)["json"] = SimpleNamespace(dumps=lambda _: number)
            raise PictureError("whatever")
        if word == "lie":
            return Prepared(np.zeros((1, 5, 1, 1), np.uint8))
        if word == "once" and self.once is not None and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        count = int(number or 1)
        crops = np.full((count, 2, 3, 3), ord(word[0]), np.uint8)
        found = np.zeros(count, FACE)
        found["boxes"][:, 0] = np.arange(count)
        return Prepared(crops, found if word == "found" else None, far=word == "far")


@dataclass(frozen=True)
class Environment:
    """Says of the worker itself what the tests ask for."""

    size: tuple[int, int] = (2, 3)

    def __call__(self, data: Path | bytes) -> Prepared:
        import sys

        loaded = {"torch", "faiss", "h5py", "onnxruntime"} & set(sys.modules)
        raise PictureError(f"{os.getppid()} {sorted(loaded)} {sys.path[0]}")
