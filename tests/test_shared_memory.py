from __future__ import annotations

import mmap
import os

import pytest

from faceidx.shared_memory import can_share, memory_seen, new_memory

pytestmark = pytest.mark.skipif(not can_share, reason="this system has no memory without a name")


def test_who_has_the_descriptor_sees_the_same_memory() -> None:
    descriptor = new_memory(1000)
    one, other = memory_seen(descriptor), memory_seen(descriptor)
    os.close(descriptor)
    one[7] = 5
    assert other.tolist() == [0] * 7 + [5] + [0] * 992


@pytest.mark.parametrize("size", [0, 10 * mmap.PAGESIZE])
def test_nobody_can_take_it_from_under_the_others(size: int) -> None:
    descriptor = new_memory(mmap.PAGESIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, size)
    os.close(descriptor)
