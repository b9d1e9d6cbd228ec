"""Where an index runs: on the CPU, or on a GPU where FAISS was built for one."""

from __future__ import annotations

import logging
from typing import Any

from faceidx.errors import InputError

# FAISS's GPU indexes return at most this many neighbours (faiss/gpu/impl/IndexUtils.h).
MAX_GPU_K = 2048

_log = logging.getLogger(__name__)


def on_cpu(device: str) -> bool:
    """Whether a search is to run on the CPU; `auto` does where FAISS finds no GPU."""
    return device == "cpu" or (device == "auto" and not _gpus())


def _gpus() -> int:
    import faiss

    # faiss-cpu has get_num_gpus, which answers 0, but no GPU resources.
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def to_device(index: Any, device: str) -> Any:
    """Return the index on `device` (`auto`, `cpu`, `cuda`, `cuda:N`); `auto` falls back to the CPU.

    Raises:
        InputError: a GPU was asked for that FAISS cannot use.
    """
    import faiss

    if on_cpu(device):
        return index
    gpus = _gpus()
    number = int(device.partition(":")[2] or 0)
    if number >= gpus:
        raise InputError(
            f"FAISS finds {gpus} GPUs here, not one for --device {device}; give --device cpu"
        )
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, index)
    except RuntimeError as error:
        if device != "auto":
            raise InputError(
                f"the gallery does not fit on --device {device} "
                f"({str(error).splitlines()[0]}); give --device cpu"
            ) from None
        _log.warning("the gallery does not fit on the GPU; searching on the CPU")
        return index
