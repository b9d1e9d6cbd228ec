"""Fixtures shared by all tests: real faces where they are at hand, else a skip that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real faces beside the checkout."""
    if not _SHARED.is_dir():
        pytest.skip(f"the real faces are not at hand ({_SHARED} is no folder)")
    return _SHARED
