"""What benchmarks on a GPU share: no script, but a part of several."""

from __future__ import annotations

import time

import torch

SIDE, PRODUCTS = 8192, 20


def wait(device: torch.device) -> None:
    """Wait for a GPU to have done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(precision: str) -> float:
    """Operations a second of the GPU, in a product of large matrices."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    matrix = torch.randn(SIDE, SIDE, device="cuda").to(kinds[precision])
    _ = matrix @ matrix
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        _ = matrix @ matrix
    torch.cuda.synchronize()
    return 2 * SIDE**3 * PRODUCTS / (time.perf_counter() - began)
