"""How torch runs a network over a batch: in chunks of one size, compiled where that pays.

On a CPU each core takes a chunk at a time and works on it alone. Cores that share one chunk must
wait for each other after every layer, and a chunk of 32 pictures fills the caches many times over.
What a picture's embedding is depends on its place in its chunk alone: not on how many cores there
are. On a GPU a chunk is the whole batch (`gpu_lane.py`).
"""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from faceidx.files import cache_folder
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import Compiled, mirror
from faceidx.models.folding import fold_norms
from faceidx.models.fusing import fuse_convolutions
from faceidx.models.gpu_lane import GpuLane
from faceidx.models.onednn_graph import graph_of, split_biases
from faceidx.threads import single_threads

logger = logging.getLogger(__name__)

# Pictures that a core takes at a time (benchmarks/engines.py): as many as keep a layer's input and
# output in the caches, and enough that calling the layers costs little.
CHUNK = 8
_GPU_BATCH = 256
_MOST_COMPILED = 64
_CODE_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A batch norm's own numbers are few and span many magnitudes: they stay in float32, which torch's
# batch norms take along with inputs of half the precision.
_KEPT = (nn.BatchNorm1d, nn.BatchNorm2d)


class Runner:
    """Runs a network on a device in one precision."""

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        device: str,
        precision: str,
        batch_size: int | None = None,
        compiled: Compiled = False,
    ) -> None:
        """Prepare a network; `network` itself is left alone.

        Args:
            network: (N, 3, H, W) to (N, D), in float32 and evaluation mode.
            batch_size: what batches will have; needed where a GPU is to run it compiled.
            compiled: compile it now, which takes from seconds to minutes; as oneDNN's graph it is
                for CPUs and bf16. Where that fails, a warning says so and it runs as it is;
                `self.compiled` tells, as `self.captured` does whether a GPU gets its kernels as
                one CUDA graph, which it does where `batch_size` is given.
        """
        self._device = torch.device(device)
        on_gpu = self._device.type == "cuda"
        self._chunk = (batch_size or _GPU_BATCH) if on_gpu else CHUNK
        self._size = preprocessing.image_size
        self.best_batch = self._chunk if on_gpu else 2 * CHUNK * torch.get_num_threads()
        self._pool = None if on_gpu else _one_thread_a_core()
        self.compiled: Compiled = False
        self._lane: GpuLane | None = None
        for how in dict.fromkeys([compiled, False]):
            biases = _biases(how, precision, self._device)
            prepared = _Prepared(network, preprocessing, _DTYPES[precision], biases=biases)
            self.network = prepared.to(self._device).eval()
            self._run: Any = self.network
            if not how or self._compile(how):
                break
        if on_gpu and self._lane is None:
            self._lane = self._new_lane(fixed=batch_size is not None)
        self.captured = self._lane is not None and self._lane.captured

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB to (N, D) float32."""
        if self._lane is None:
            return self.begin(pictures)()
        return np.concatenate([self._lane.begin(part)() for part in self._parts(pictures)])

    def begin(self, pictures: np.ndarray, *, flip: bool = False) -> Callable[[], np.ndarray]:
        """As a call that returns at once; what it returns waits for the rows.

        Args:
            flip: add those of the mirror images.
        """
        if self._lane is not None and len(pictures) <= self._chunk:
            return self._lane.begin(pictures, flip=flip)
        rows = self._begun(pictures)
        if not flip:
            return rows
        mirrored = self._begun(mirror(pictures))
        return lambda: rows() + mirrored()

    def _begun(self, pictures: np.ndarray) -> Callable[[], np.ndarray]:
        if self._pool is not None:
            chunks = [self._pool.submit(self._rows, part) for part in self._parts(pictures)]
            return lambda: np.concatenate([chunk.result() for chunk in chunks])
        rows = self(pictures)
        return lambda: rows

    def _parts(self, pictures: np.ndarray) -> list[np.ndarray]:
        return [pictures[i : i + self._chunk] for i in range(0, len(pictures), self._chunk)]

    def _rows(self, pictures: np.ndarray) -> np.ndarray:
        count = len(pictures)
        if self.compiled and count < self._chunk:
            # Another size would be compiled anew.
            padding = np.zeros((self._chunk - count, *pictures.shape[1:]), np.uint8)
            pictures = np.concatenate([pictures, padding])
        with torch.inference_mode():
            rows: np.ndarray = self._run(torch.from_numpy(pictures))[:count].numpy()
        return rows

    def _first_rows(self, pictures: np.ndarray) -> None:
        # Torch's compiler takes a second to import, and oneDNN's graph does without.
        with _room_for_many() if self.compiled is True else nullcontext():
            self._rows(pictures)

    def _new_lane(self, *, fixed: bool) -> GpuLane:
        return GpuLane(
            self._run, device=self._device, most=self._chunk, size=self._size, fixed=fixed
        )

    def _compile(self, how: Compiled) -> bool:
        """Compile, and run it once; whether that went well."""
        blank = np.zeros((self._chunk, *self._size, 3), np.uint8)
        self.compiled = how
        try:
            self._run = self._graph(blank) if how == "onednn" else self._compiled_by_torch()
            if self._pool is None:
                with _room_for_many():
                    self._lane = self._new_lane(fixed=True)
            else:
                self._pool.submit(self._first_rows, blank).result()
        except Exception as error:  # compilers fail in any way there is
            self.compiled = False
            reason = " ".join(str(error).split())[:120]
            logger.warning("torch runs the model uncompiled, which is slower (%s)", reason)
            return False
        return True

    def _graph(self, blank: np.ndarray) -> Any:
        if self._pool is None:
            raise RuntimeError("oneDNN's graph is for CPUs")
        # By a thread with the settings of those that will run it.
        return self._pool.submit(graph_of, self.network, torch.from_numpy(blank)).result()

    def _compiled_by_torch(self) -> Any:
        keep_compiled_code()
        options: dict[str, Any] = {"freezing": True} if self._pool is not None else {}
        return torch.compile(self.network, dynamic=False, options=options)


# What convolutions in bf16 do with their biases: take them as all else is, add them in float32, or
# add them in two parts.
_Biases = Literal["rounded", "exact", "split"]


def _biases(compiled: Compiled, precision: str, device: torch.device) -> _Biases:
    if precision != "bf16" or device.type != "cpu":
        return "rounded"
    if compiled == "onednn":
        return "split"
    return "rounded" if compiled else "exact"  # what torch compiles it fuses by itself


class _Prepared(nn.Module):
    """(N, H, W, 3) uint8 RGB to (N, D) float32: normalised on the device, norms folded."""

    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        dtype: torch.dtype,
        *,
        biases: _Biases,
    ) -> None:
        super().__init__()
        folded = fold_norms(network)
        self.backbone = _converted(folded, dtype)
        shape = (CHUNK, 3, *preprocessing.image_size)
        if biases == "split":
            split_biases(self.backbone, folded)
        elif biases == "exact" and not fuse_convolutions(self.backbone, folded, shape):
            self.backbone = _converted(folded, dtype)
        self._bgr, self._dtype = preprocessing.color == "bgr", dtype
        self.register_buffer("_mean", torch.tensor(preprocessing.mean))
        self.register_buffer("_std", torch.tensor(preprocessing.std))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        batch = normalized(pictures, self._mean, self._std, bgr=self._bgr, dtype=self._dtype)
        embeddings: torch.Tensor = self.backbone(batch)
        return embeddings.float()


def _converted(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a network in another precision, laid out for convolutions."""
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    if dtype == torch.float32:
        return network
    for module in network.modules():
        if not isinstance(module, _KEPT):
            for part in (module._parameters, module._buffers):
                for tensor in part.values():
                    if tensor is not None and tensor.is_floating_point():
                        tensor.data = tensor.data.to(dtype)
    return network


def normalized(
    pictures: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    *,
    bgr: bool,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Turn pictures into a network's input.

    Args:
        pictures: (N, H, W, 3) RGB in 0..255, of any number type.
        mean: (3,) of values in 0..1, in the network's colour order.
        std: as `mean`.

    Returns:
        (N, 3, H, W) in channels_last layout, in the network's colour order; reckoned in float32.
    """
    count, height, width, colors = pictures.shape
    if bgr:
        pictures = pictures.flip(-1)
    # All colours of a row of pixels side by side: on a CPU ten times as fast as three at a time.
    mean, std = (mean * 255).repeat(width), (std * 255).repeat(width)
    rows = pictures.reshape(count, height, width * colors).to(torch.float32)
    rows = ((rows - mean) / std).to(dtype)
    # NHWC seen as NCHW is channels_last already.
    return rows.view(count, height, width, colors).permute(0, 3, 1, 2)


def _room_for_many() -> AbstractContextManager[None]:
    """Have torch compile what is run first, in this thread, or raise.

    Each network that a process compiles counts as the same code anew, and beyond a limit of 8 torch
    runs it uncompiled in silence.
    """
    limit = max(torch._dynamo.config.recompile_limit, _MOST_COMPILED)
    room: AbstractContextManager[None] = torch._dynamo.config.patch(
        recompile_limit=limit, fail_on_recompile_limit_hit=True
    )
    return room


@functools.cache
def _one_thread_a_core() -> ThreadPoolExecutor:
    """As many threads, each by itself, as torch would use for one layer."""
    return single_threads(torch.get_num_threads(), "model")


def keep_compiled_code() -> None:
    """Have torch keep what it compiles, and load it from, the user's own cache folder.

    Its own choice is a folder of a known name in the one for temporary files, which all share; it
    is noted in the environment as soon as a part of torch's compiler is imported.
    """
    from torch._inductor import codecache
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # It says that a machine with CUDA's compiler has no GPU, which the user knows.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    chosen = os.environ.get(_CODE_FOLDER, default_cache_dir())
    if chosen == default_cache_dir() and (folder := cache_folder()):
        os.environ[_CODE_FOLDER] = chosen = str(folder / "torch")
    # What it makes of C++ headers would go there whatever is chosen.
    codecache._HEADER_DIR = f"{chosen}/headers"
    codecache._HEADER_LOCK_DIR = f"{chosen}/headers/locks"
