"""What `faceidx train` says."""

from __future__ import annotations

from typing import Any

import pytest

from faceidx.cli.train import _summary

_RESULT: dict[str, Any] = {
    "model": "run/model.safetensors",
    "arch": "resnet10",
    "classes": 8,
    "images": 72,
    "left_out": 0,
    "epochs": 3,
    "best_epoch": 2,
    "val_accuracy": None,
    "val_auc": 0.5,
    "pairs_auc": None,
    "images_per_second": 9.0,
    "seconds": 24.0,
}


@pytest.mark.parametrize(("people", "whose"), [(4, "people"), (0, "pictures")])
def test_the_summary_speaks_of_people_held_out_only_where_there_are_any(
    people: int, whose: str
) -> None:
    text = _summary({**_RESULT, "held_out_people": people})
    assert f"pair AUC on held-out {whose}: 0.5000" in text
