"""What the epochs were worth: which one is best, and whether the curve still rises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def worth(line: dict[str, Any], select: str) -> float | None:
    """What an epoch is worth, 0 to 1; None where nothing can be computed.

    With few people the pair AUC alone can be highest by chance while the classifier still knows
    nothing, so the two count alike.

    Args:
        line: of `metrics.jsonl`.
        select: `val` or `pairs`, what chooses.
    """
    wanted = ("pairs_auc",) if select == "pairs" else ("val_auc", "val_accuracy")
    values = [line[name] for name in wanted if line[name] is not None]
    return sum(values) / len(values) if values else None


def best(history: Sequence[dict[str, Any]], select: str) -> dict[str, Any]:
    """The best epoch so far; of equals, and where nothing can be computed, the latest."""
    return max(history, key=lambda line: (worth(line, select) or 0.0, line["epoch"]))


def curve(history: Sequence[dict[str, Any]], select: str) -> list[float]:
    """What the epochs were worth, those without a figure left out."""
    values = [worth(line, select) for line in history]
    return [value for value in values if value is not None]
