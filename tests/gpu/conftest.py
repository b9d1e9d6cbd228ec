"""Tests that need a GPU: `make test-gpu`. All others run as if there were none."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not os.environ.get("FACEIDX_TEST_GPU"):
        pytest.skip("needs a GPU, and FACEIDX_TEST_GPU=1 (make test-gpu)")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")
