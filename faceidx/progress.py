"""How long work tells its caller how far it is. The library calls back and never prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One report from a running job."""

    stage: str
    """What is being done, for a person to read: `embed`, `epoch 3/24`."""
    done: int
    total: int | None
    """None where the amount of work is not known yet."""
    unit: str = "images"
    note: str = ""
    """A short addition, such as `loss 2.31` or `3 failed`."""


ProgressCallback = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody: the default of every `progress` parameter."""
